package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// job is what the parts of the lab tell one another, as a file in the lab's
// private directory.
type job struct {
	// Mode is native or uml.
	Mode string
	// Argv, Env and WorkDir are the caller's.
	Argv    []string
	Env     []string
	WorkDir string
	// Executable is this program.
	Executable string
	// PrivateDir holds everything about this run but the disks, and is removed
	// after it. DiskDir is the same for the disks' files (and, in native mode, for
	// the command's TMPDIR): in memory where there is enough of it.
	PrivateDir string
	DiskDir    string
	// Disks are the devices that the command finds DiskFiles at.
	DiskFiles []string
	Disks     []string
	// MemoryBytes is the size of a uml machine.
	MemoryBytes int64
	// Network is the socket that a uml machine's network is connected to; "": it has none.
	Network string
	Timeout time.Duration
	// HungAfter is how long a uml machine's heart may stand still; 0 is forever.
	HungAfter time.Duration
	Verbose   bool
	// OneStream says that standard output and error are one and the same file,
	// whose order of writes must be kept.
	OneStream bool
}

func (j *job) path(name string) string { return filepath.Join(j.PrivateDir, name) }

// The files of a private directory.
const (
	jobFile     = "job.json"
	stdoutFile  = "stdout"
	stderrFile  = "stderr"
	startedFile = "started" // the machine's init runs
	exitFile    = "exit"
	machineFile = "machine.pid"
)

func (j *job) save() error {
	text, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return err
	}
	// Nobody else may read it: environments hold secrets.
	return os.WriteFile(j.path(jobFile), text, 0o600)
}

func loadJob(privateDir string) (*job, error) {
	text, err := os.ReadFile(filepath.Join(privateDir, jobFile))
	if err != nil {
		return nil, err
	}
	j := &job{}
	if err := json.Unmarshal(text, j); err != nil {
		return nil, fmt.Errorf("%s: %w", jobFile, err)
	}
	return j, nil
}

// commandEnv is the environment of the command: the caller's, with what the
// machine changes.
func (j *job) commandEnv(changes map[string]string) []string {
	var env []string
	home := false
	for _, entry := range j.Env {
		name, value, _ := strings.Cut(entry, "=")
		if _, changed := changes[name]; changed {
			continue
		}
		home = home || name == "HOME" && value != ""
		env = append(env, entry)
	}
	if !home {
		env = append(env, "HOME=/root")
	}
	for name, value := range changes {
		env = append(env, name+"="+value)
	}
	return env
}

// machineEnv is the command's environment on any machine.
func (j *job) machineEnv(lvmSystemDir, tempDir, path string) []string {
	return j.commandEnv(map[string]string{
		"LAB_MODE_ACTIVE": j.Mode,
		"LAB_DISKS":       strings.Join(j.Disks, ","),
		"LVM_SYSTEM_DIR":  lvmSystemDir,
		"TMPDIR":          tempDir,
		"PATH":            path,
	})
}

// getenv looks name up in the caller's environment.
func (j *job) getenv(name string) string {
	for _, entry := range j.Env {
		if key, value, _ := strings.Cut(entry, "="); key == name {
			return value
		}
	}
	return ""
}
