package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// header is struct dm_ioctl of linux/dm-ioctl.h.
type header struct {
	Version     [3]uint32
	DataSize    uint32
	DataStart   uint32
	TargetCount uint32
	OpenCount   int32
	Flags       uint32
	EventNr     uint32
	_           uint32
	Dev         uint64
	Name        [128]byte
	UUID        [129]byte
	_           [7]byte
}

const (
	headerBytes = 312
	bufferBytes = 16 << 10 // one target's status is far below a page

	cmdListDevices = 2
	cmdDevStatus   = 7
	cmdTableStatus = 12

	flagReadOnly    = 1 << 0
	flagSuspend     = 1 << 1
	flagStatusTable = 1 << 4
	flagHasTable    = 1 << 5 // DM_ACTIVE_PRESENT_FLAG
	flagBufferFull  = 1 << 8
	// flagNoFlush: do not commit the pool's metadata for a status; that would wait for its I/O.
	flagNoFlush = 1 << 11

	targetSpecBytes = 40 // struct dm_target_spec: u64 start, u64 length, s32 status, u32 next, char type[16]
	targetTypeStart = 24
	targetTypeEnd   = 40
)

// request is _IOWR(DM_IOCTL, cmd, struct dm_ioctl).
func request(cmd uintptr) uintptr { return 3<<30 | headerBytes<<16 | 0xfd<<8 | cmd }

// ControlPath is device-mapper's control node.
const ControlPath = "/dev/mapper/control"

// Control is the kernel's device-mapper. The zero value is ready for use; the node is opened by the first call.
type Control struct {
	mu   sync.Mutex
	file *os.File
}

var _ Kernel = (*Control)(nil)

func (c *Control) open() (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil {
		return c.file, nil
	}
	f, err := os.OpenFile(ControlPath, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("device-mapper is not available (modprobe dm-mod; is /dev mounted into the container?): %w", err)
	}
	c.file = f
	return f, nil
}

// Close gives the control node back.
func (c *Control) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == nil {
		return nil
	}
	f := c.file
	c.file = nil
	return f.Close()
}

// await keeps the goroutine and not the caller when the kernel does not answer.
func await[T any](ctx context.Context, name string, ask func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		value, err := ask()
		done <- answer{value, err}
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("device-mapper does not answer for %s: %w", name, context.Cause(ctx))
	}
}

// call makes one ioctl.
func (c *Control) call(ctx context.Context, cmd uintptr, name string, flags uint32) (header, string, string, error) {
	type answer struct {
		h              header
		target, params string
	}
	if len(name) >= len(header{}.Name) {
		return header{}, "", "", fmt.Errorf("device name %q is longer than device-mapper allows", name)
	}
	file, err := c.open()
	if err != nil {
		return header{}, "", "", err
	}
	a, err := await(ctx, name, func() (a answer, err error) {
		a.h, a.target, a.params, err = ioctl(file, cmd, name, flags)
		return a, err
	})
	return a.h, a.target, a.params, err
}

// ioctlRaw makes an ioctl with a buffer of so many bytes, which is the answer. Check its header for flagBufferFull.
func ioctlRaw(file *os.File, cmd uintptr, name string, flags uint32, size uint32) (*header, []byte, error) {
	buf := make([]byte, size)
	h := (*header)(unsafe.Pointer(&buf[0])) //nolint:gosec // the buffer is larger than the header and lives on
	h.Version = [3]uint32{4, 0, 0}
	h.DataSize = size
	h.DataStart = headerBytes
	h.Flags = flags
	copy(h.Name[:], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), request(cmd), uintptr(unsafe.Pointer(&buf[0]))) //nolint:gosec // as the ioctl wants it
	if errors.Is(errno, unix.ENXIO) {
		return nil, nil, fmt.Errorf("%w: %s", ErrNoDevice, name)
	}
	if errno != 0 {
		return nil, nil, fmt.Errorf("device-mapper ioctl %d on %s: %w", cmd, name, errno)
	}
	return h, buf, nil
}

// ioctl returns the header and the first target's type and parameters.
func ioctl(file *os.File, cmd uintptr, name string, flags uint32) (header, string, string, error) {
	h, buf, err := ioctlRaw(file, cmd, name, flags, bufferBytes)
	if err != nil {
		return header{}, "", "", err
	}
	if h.Flags&flagBufferFull != 0 {
		return header{}, "", "", fmt.Errorf("device-mapper's answer for %s exceeds %d bytes", name, bufferBytes)
	}
	if cmd != cmdTableStatus || h.TargetCount == 0 {
		return *h, "", "", nil
	}
	start := int(h.DataStart)
	if start < headerBytes || start+targetSpecBytes > len(buf) {
		return header{}, "", "", fmt.Errorf("device-mapper's answer for %s is malformed", name)
	}
	spec := buf[start:]
	return *h, cString(spec[targetTypeStart:targetTypeEnd]), cString(spec[targetSpecBytes:]), nil
}

func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// PoolStatus implements Kernel.
func (c *Control) PoolStatus(ctx context.Context, group, pool string) (PoolStatus, error) {
	for _, name := range poolDeviceNames(group, pool) {
		_, target, status, err := c.call(ctx, cmdTableStatus, name, flagNoFlush)
		if errors.Is(err, ErrNoDevice) || (err == nil && target != thinPoolTarget) {
			continue
		}
		if err != nil {
			return PoolStatus{}, err
		}
		_, _, table, err := c.call(ctx, cmdTableStatus, name, flagNoFlush|flagStatusTable)
		if err != nil {
			return PoolStatus{}, err
		}
		return ParsePoolStatus(status, table)
	}
	return PoolStatus{}, fmt.Errorf("%w: thin pool %s/%s is not active", ErrNoDevice, group, pool)
}

// Info implements Kernel.
func (c *Control) Info(ctx context.Context, group, lv string) (Info, error) {
	h, _, _, err := c.call(ctx, cmdDevStatus, DeviceName(group, lv), 0)
	if err != nil {
		return Info{}, err
	}
	if h.Flags&flagHasTable == 0 { // an activation died, and has to be done again
		return Info{}, fmt.Errorf("%w: %s/%s has one without a table", ErrNoDevice, group, lv)
	}
	return infoOf(h), nil
}

func infoOf(h header) Info {
	dev := h.Dev
	return Info{
		OpenCount: int(h.OpenCount), Suspended: h.Flags&flagSuspend != 0, ReadOnly: h.Flags&flagReadOnly != 0,
		Major: unix.Major(dev), Minor: unix.Minor(dev),
	}
}
