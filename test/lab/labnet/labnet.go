// Package labnet connects machines of the lab with one another and with nothing else: a switch for Ethernet frames, to whose
// socket `lab --network` connects a machine. Neither rights nor an interface of the host are needed.
package labnet

import (
	"net"
	"sync"
	"time"
)

const (
	// maxFrame is more than any frame has.
	maxFrame = 64 << 10
	// header is what a frame has at least: two addresses and a type.
	header = 14
	// patience is how long a frame waits for a machine that does not read, hung or gone, before it is lost, as networks lose frames. It is
	// long because a loaded host may stop this process for a while.
	patience = 5 * time.Second
)

type address [6]byte

// Switch passes frames on between the machines that are connected to it.
type Switch struct {
	listener *net.UnixListener

	mu    sync.Mutex
	ports map[*net.UnixConn]struct{}
	known map[address]*net.UnixConn // where an address was seen last
}

// Listen makes a switch on a socket, whose name must be shorter than the 108 bytes that the kernel has for it.
func Listen(socket string) (*Switch, error) {
	// Frames are messages; User Mode Linux calls this transport bess.
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	s := &Switch{listener: listener, ports: map[*net.UnixConn]struct{}{}, known: map[address]*net.UnixConn{}}
	go s.accept()
	return s, nil
}

// Close ends the switch and removes its socket.
func (s *Switch) Close() error {
	err := s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for port := range s.ports {
		_ = port.Close()
	}
	return err
}

func (s *Switch) accept() {
	for {
		port, err := s.listener.AcceptUnix()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.ports[port] = struct{}{}
		s.mu.Unlock()
		go s.serve(port)
	}
}

// serve passes on what one machine sends, until it is gone.
func (s *Switch) serve(port *net.UnixConn) {
	defer s.leave(port)
	frame := make([]byte, maxFrame)
	for {
		n, err := port.Read(frame)
		if err != nil {
			return
		}
		if n < header {
			continue
		}
		for _, to := range s.route(port, frame[:n]) {
			_ = to.SetWriteDeadline(time.Now().Add(patience))
			_, _ = to.Write(frame[:n])
		}
	}
}

// route learns where the frame's sender is, and says where the frame goes to: everywhere else if that is not known.
func (s *Switch) route(from *net.UnixConn, frame []byte) []*net.UnixConn {
	to, sender := address(frame[:6]), address(frame[6:12])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[sender] = from
	if port, ok := s.known[to]; ok {
		return []*net.UnixConn{port}
	}
	var all []*net.UnixConn
	for port := range s.ports {
		if port != from {
			all = append(all, port)
		}
	}
	return all
}

func (s *Switch) leave(port *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ports, port)
	for addr, at := range s.known {
		if at == port {
			delete(s.known, addr)
		}
	}
	_ = port.Close()
}
