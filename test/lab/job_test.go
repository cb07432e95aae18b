package main

import (
	"os"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestJobSurvivesItsFile(t *testing.T) {
	j := &job{
		Mode:       modeUML,
		Argv:       []string{"sh", "-c", "echo 'a b'\n", ""},
		Env:        []string{"A=1", "B=two words", "C=ü\x01"},
		WorkDir:    "/work dir",
		PrivateDir: t.TempDir(),
		DiskFiles:  []string{"/dev/shm/x/disk1.img"},
		Disks:      []string{"/dev/ubdb"},
		Timeout:    time.Minute,
		OneStream:  true,
	}
	if err := j.save(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(j.path(jobFile))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: others could read the environment", info.Mode())
	}
	got, err := loadJob(j.PrivateDir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, j) {
		t.Errorf("got  %+v\nwant %+v", got, j)
	}
}

func TestMachineEnv(t *testing.T) {
	j := &job{
		Mode:  modeUML,
		Disks: []string{"/dev/ubdb", "/dev/ubdc"},
		Env:   []string{"HOME=/home/me", "TMPDIR=/tmp", "LAB_MODE_ACTIVE=native", "KEEP=a=b"},
	}
	got := j.machineEnv("/lvm", "/mem", "/bin")
	slices.Sort(got)
	want := []string{
		"HOME=/home/me", "KEEP=a=b", "LAB_DISKS=/dev/ubdb,/dev/ubdc", "LAB_MODE_ACTIVE=uml", "LVM_SYSTEM_DIR=/lvm",
		"PATH=/bin", "TMPDIR=/mem",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	j.Env = nil
	if got := j.machineEnv("", "", ""); !slices.Contains(got, "HOME=/root") {
		t.Errorf("no HOME in %q", got)
	}
}

func TestHiddenBy(t *testing.T) {
	for dir, want := range map[string]string{
		"/run/user/0": "/run", "/dev": "/dev", "/dev/shm/x": "/dev", "/runner": "", "/tmp/run": "", "/": "",
	} {
		if got := hiddenBy(dir); got != want {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
}

func TestAvailableBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:     50 kB\nBuffers: 3 kB\n": 50 << 10,
		"MemAvailable:": 0, "": 0, "MemAvailable: x kB": 0,
	} {
		if got := availableBytes(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
