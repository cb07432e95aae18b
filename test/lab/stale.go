package main

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockFile is locked for as long as the front or the runner of a job lives.
const lockFile = "lock"

// lock marks the job as alive. The runner inherits the file, and the lock with it.
func (j *job) lock() (*os.File, error) {
	// Under another name first: a lock file that nobody holds is a dead job's.
	fresh := j.path(lockFile + ".new")
	file, err := os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, os.Rename(fresh, j.path(lockFile))
}

// removeStale cleans up after labs whose every process was killed at once, as by
// the end of their container. Nothing but the directory is left of such a lab in
// uml mode, but in native mode devices may be.
func removeStale() {
	locks, err := filepath.Glob(filepath.Join(os.TempDir(), "lab-*", lockFile))
	if err != nil {
		return
	}
	for _, name := range locks {
		if err := removeIfStale(name); err != nil {
			complain(err)
		}
	}
}

func removeIfStale(lock string) error {
	file, err := os.OpenFile(lock, os.O_RDWR, 0)
	if err != nil {
		return nil // another user's, or gone by now
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil // alive
	}
	j, err := loadJob(filepath.Dir(lock))
	if errors.Is(err, os.ErrNotExist) {
		return nil // it ended between two of these lines
	}
	if err != nil {
		return err
	}
	if j.Mode == modeNative && os.Geteuid() == 0 {
		if err := tearDownNative(j); err != nil {
			return err
		}
	}
	j.removeFiles()
	return nil
}
