//go:build lab

package torture_test

import "golang.org/x/sys/unix"

// watched: see regs_amd64_test.go.
var watched = map[uint64]string{
	unix.SYS_IOCTL: "ioctl", unix.SYS_WRITE: "write", unix.SYS_WRITEV: "writev", unix.SYS_PWRITE64: "pwrite64", unix.SYS_PWRITEV: "pwritev",
	unix.SYS_IO_SUBMIT: "io_submit", unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync", unix.SYS_FLOCK: "flock",
	unix.SYS_RENAMEAT: "renameat", unix.SYS_UNLINKAT: "unlinkat", unix.SYS_MKNODAT: "mknodat", unix.SYS_SYMLINKAT: "symlinkat",
	unix.SYS_SEMGET: "semget", unix.SYS_SEMCTL: "semctl", unix.SYS_SEMOP: "semop",
}

// peek: every kernel for arm64 that has a lab has PTRACE_GET_SYSCALL_INFO.
func peek(int) (number, first, second uint64, err error) { return 0, 0, 0, unix.ENOSYS }
