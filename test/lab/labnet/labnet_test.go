package labnet_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/test/lab/labnet"
)

const (
	all   = "\xff\xff\xff\xff\xff\xff"
	alice = "\x02\x00\x00\x00\x00\x01"
	bob   = "\x02\x00\x00\x00\x00\x02"
	eve   = "\x02\x00\x00\x00\x00\x03"

	greeting = "\x08\x06hello"
)

// plug connects a machine, and makes it known by a frame to everyone, which the others must get.
func plug(t *testing.T, socket, addr string, others ...*net.UnixConn) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	send(t, conn, all+addr+greeting)
	for _, other := range others {
		receive(t, other, all+addr+greeting)
	}
	return conn
}

func send(t *testing.T, conn *net.UnixConn, frame string) {
	t.Helper()
	if _, err := conn.Write([]byte(frame)); err != nil {
		t.Fatal(err)
	}
}

// receive wants a frame as the next one, but for greetings: the switch may pass on one of a machine that was there before this one
// when this one is.
func receive(t *testing.T, conn *net.UnixConn, want string) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 2048)
	for {
		n, err := conn.Read(buf)
		if err == nil && string(buf[:n]) == want {
			return
		}
		if err != nil || !strings.HasSuffix(string(buf[:n]), greeting) {
			t.Fatalf("got %q (%v), want %q", buf[:n], err, want)
		}
	}
}

// A frame goes to its address and nowhere else, as far as the switch has seen the address, and else to all but its sender.
func TestFramesGoWhereTheyShould(t *testing.T) {
	dir, err := os.MkdirTemp("", "net") // t.TempDir's names are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "switch")
	s, err := labnet.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	a := plug(t, socket, alice)
	b := plug(t, socket, bob, a)
	e := plug(t, socket, eve, a, b)

	send(t, a, bob+alice+"\x08\x00for bob")
	receive(t, b, bob+alice+"\x08\x00for bob")
	send(t, a, "short")
	send(t, b, all+bob+"\x08\x00for all")
	for _, conn := range []*net.UnixConn{a, e} { // and not what was for bob before it
		receive(t, conn, all+bob+"\x08\x00for all")
	}

	// A machine that is gone keeps nobody up, and may come back elsewhere.
	_ = b.Close()
	b = plug(t, socket, bob, a, e)
	send(t, e, bob+eve+"\x08\x00again")
	receive(t, b, bob+eve+"\x08\x00again")

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}
