//go:build lab

package torture_test

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// watched are the system calls by which a command changes anything outside of itself. A command that is killed before any
// other one has done the same as one that is killed before the next of these.
var watched = map[uint64]string{
	unix.SYS_IOCTL: "ioctl", unix.SYS_WRITE: "write", unix.SYS_WRITEV: "writev", unix.SYS_PWRITE64: "pwrite64", unix.SYS_PWRITEV: "pwritev",
	unix.SYS_IO_SUBMIT: "io_submit", unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync", unix.SYS_FLOCK: "flock",
	unix.SYS_RENAME: "rename", unix.SYS_RENAMEAT: "renameat", unix.SYS_UNLINK: "unlink", unix.SYS_UNLINKAT: "unlinkat",
	unix.SYS_MKNOD: "mknod", unix.SYS_MKNODAT: "mknodat", unix.SYS_SYMLINK: "symlink", unix.SYS_SYMLINKAT: "symlinkat",
	unix.SYS_MKDIR: "mkdir", unix.SYS_RMDIR: "rmdir", unix.SYS_SEMGET: "semget", unix.SYS_SEMCTL: "semctl", unix.SYS_SEMOP: "semop",
}

// peek is systemCall where the kernel has no PTRACE_GET_SYSCALL_INFO, like User Mode Linux: from the offsets of orig_rax, rdi
// and rsi in struct user (sys/user.h).
func peek(pid int) (number, first, second uint64, err error) {
	for i, to := range []*uint64{&number, &first, &second} {
		var word [8]byte
		if _, err := unix.PtracePeekUser(pid, uintptr(15-i)*8, word[:]); err != nil {
			return 0, 0, 0, err
		}
		*to = binary.NativeEndian.Uint64(word[:])
	}
	return number, first, second, nil
}
