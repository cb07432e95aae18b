package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// pageTimeout is for all commands of a page.
const pageTimeout = 3 * time.Minute

// marker begins the output of a block.
const marker = "\x1e block "

// preamble makes the machine what the pages speak of: empty disks /dev/sdX, /dev/sdY and /dev/sdZ, our programs in the PATH,
// and a /mnt of the page's own, for the lab's root is the host's file system. pvmove needs dm-mirror, which User Mode Linux loads
// only for whoever asks the kernel's own modprobe.
const preamble = `set -euo pipefail
mount --make-rprivate /
mount -t tmpfs docs /mnt
IFS=, read -r -a disks <<<"$LAB_DISKS"
for i in 0 1 2; do ln -s "${disks[i]}" "/dev/sd$(cut -c$((i + 1)) <<<XYZ)"; done
if [[ $LAB_MODE_ACTIVE = uml ]]; then "$(</proc/sys/kernel/modprobe)" -a dm-mirror; fi
leave() {
  for job in $(jobs -p); do kill "$job" 2>/dev/null || true; done
  wait
  rm -f /dev/sd[XYZ]
}
trap leave EXIT
`

// runPage runs the commands of a page in their order, in one shell, on the lab's machine, and compares what they print with
// what the page shows.
func runPage(ctx context.Context, root string, p *page, systemd bool, out io.Writer) (err error) {
	if os.Getenv("LAB_DISKS") == "" {
		return errors.New("no disks: pages are run in the lab, by make docs")
	}
	dir, err := os.MkdirTemp("", "lvmsnap-docs-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := writeConf(dir); err != nil {
		return err
	}
	env := append(os.Environ(), "PATH="+filepath.Join(root, "bin")+":"+os.Getenv("PATH"), "LC_ALL=C.UTF-8", "LVM_SYSTEM_DIR="+dir)
	script := strings.Builder{}
	script.WriteString(preamble)
	for i, b := range p.blocks {
		if isRun(b, systemd) {
			fmt.Fprintf(&script, "printf '\\n%s%d\\n'\n%s", marker, i, b.text)
		}
	}
	// Into a file: what runs in the background would keep a pipe open.
	output, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return err
	}
	defer output.Close()
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script.String())
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = root, env, output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	begin := time.Now()
	runErr := cmd.Run()
	if ctx.Err() != nil {
		runErr = fmt.Errorf("not done after %s: %w", pageTimeout, ctx.Err())
	}
	printed, err := os.ReadFile(output.Name())
	if err != nil {
		return err
	}
	if err := judge(p, string(printed), runErr); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: %d blocks in %.1f s\n", p.path, strings.Count(script.String(), marker), time.Since(begin).Seconds())
	return err
}

// judge says which block of a page failed, or printed something else than the page says.
func judge(p *page, printed string, runErr error) error {
	outputs, last := map[int]string{}, -1
	for _, part := range strings.Split(printed, "\n"+marker)[1:] {
		var text string
		if _, err := fmt.Sscanf(part, "%d\n", &last); err != nil {
			return fmt.Errorf("%s: unexpected output %q", p.path, part)
		}
		_, text, _ = strings.Cut(part, "\n")
		outputs[last] = text
	}
	if runErr != nil {
		if last < 0 {
			return fmt.Errorf("%s: before the first block: %w\n%s", p.path, runErr, printed)
		}
		return fmt.Errorf("%s:%d: %w\n%s\nprinted\n%s", p.path, p.blocks[last].line, runErr, p.blocks[last].text, outputs[last])
	}
	var errs []error
	for i, b := range p.blocks {
		if _, ran := outputs[i-1]; !isOutput(b) || !ran {
			continue
		}
		for _, line := range compareOutput(b.text, outputs[i-1]) {
			errs = append(errs, fmt.Errorf("%s:%d: not printed: %s\nprinted was\n%s", p.path, b.line, line, outputs[i-1]))
		}
	}
	return errors.Join(errs...)
}

// writeConf writes the lab's lvm.conf with the names that the pages give the disks: pvck goes by the name that it is told.
func writeConf(dir string) error {
	conf, err := os.ReadFile(filepath.Join(os.Getenv("LVM_SYSTEM_DIR"), "lvm.conf"))
	if err != nil {
		return err
	}
	const filter = "global_filter = [ "
	if !strings.Contains(string(conf), filter) {
		return errors.New("the lab's lvm.conf has no global_filter")
	}
	text := strings.Replace(string(conf), filter, filter+`"a|^/dev/sd[XYZ]$|", `, 1)
	return os.WriteFile(filepath.Join(dir, "lvm.conf"), []byte(text), 0o600)
}
