package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	socketMode = 0o600 // whoever can call us can destroy data

	// A live server answers a connect at once, in the kernel; only one whose queue is full does not.
	socketProbeTimeout = 2 * time.Second

	// sockaddr_un.sun_path, unix(7), without its terminating zero.
	maxSocketPath = 107
)

var schemePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:`)

// parseEndpoint reads --endpoint: unix:///path, unix:path or a bare path. CSI wants a unix socket (spec,
// "Connectivity"), and nothing else could be kept from other users of the node.
func parseEndpoint(endpoint string) (path string, err error) {
	path, isUnix := strings.CutPrefix(endpoint, "unix:")
	path = strings.TrimPrefix(path, "//")
	switch {
	case !isUnix && schemePattern.MatchString(endpoint):
		return "", fmt.Errorf("endpoint %q is not a unix socket (unix:///path)", endpoint)
	case path == "" || path[0] == '@': // abstract sockets have no permissions
		return "", fmt.Errorf("endpoint %q has no path", endpoint)
	case len(path) > maxSocketPath:
		return "", fmt.Errorf("endpoint %q: a socket's path has at most %d bytes, not %d", endpoint, maxSocketPath, len(path))
	}
	return path, nil
}

// listen makes the socket, in place of a stale one. The cleanup removes it again, unless somebody else has put
// another in its place.
func listen(ctx context.Context, path string) (_ net.Listener, cleanup func() error, err error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, nil, err
	}
	lc := net.ListenConfig{Control: privateSocket}
	lis, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	// We remove the file ourselves: the listener would do it by name, whoever's it is by then.
	lis.(*net.UnixListener).SetUnlinkOnClose(false)
	ours, err := os.Lstat(path)
	if err == nil {
		err = os.Chmod(path, socketMode) // for a umask that takes away even our own rights
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("cannot prepare socket %s: %w", path, err), lis.Close())
	}
	cleanup = func() error {
		now, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(ours, now) {
			return nil
		}
		return errors.Join(err, os.Remove(path))
	}
	return lis, cleanup, nil
}

// privateSocket gives the socket its mode before it has a name: Linux makes the file with the mode of the
// descriptor, less the umask. So there is no moment in which others can connect, and no umask to change for all
// threads of the process.
func privateSocket(_, _ string, c syscall.RawConn) error {
	var chmodErr error
	err := c.Control(func(fd uintptr) { chmodErr = syscall.Fchmod(int(fd), socketMode) })
	return errors.Join(err, chmodErr)
}

// removeStale removes a socket that a killed server left behind, and nothing else.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot look at %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket; remove it or choose another endpoint", path)
	}
	dialer := net.Dialer{Timeout: socketProbeTimeout}
	conn, err := dialer.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("another server answers on %s; stop it first", path), conn.Close())
	case errors.Is(err, syscall.ECONNREFUSED): // nobody listens: stale
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return fmt.Errorf("cannot tell whether a server answers on %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the stale socket %s: %w", path, err)
	}
	return nil
}
