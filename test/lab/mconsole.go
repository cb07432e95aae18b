package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
)

// The management console of User Mode Linux: one datagram with a command, answered by datagrams each of which says
// whether there are more. Commands such as version and sysrq are carried out by the kernel's interrupt handler, so
// that they are answered when nothing else runs any more.
const (
	mconsoleMagic   = 0xcafebabe
	mconsoleVersion = 2
	mconsoleData    = 512
	mconsoleHeader  = 12
)

// mconsoleSocket is below the private directory, as uml_dir and umid have it.
const mconsoleSocket = umlID + "/mconsole"

// askKernel sends one command to the console at the socket called name, and returns at most limit bytes of the
// answer. An answer that breaks off comes with an error.
func askKernel(name, command string, limit int, timeout time.Duration) (string, error) {
	// An abstract address that the kernel chooses: the answer needs one.
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"})
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	if _, err := conn.WriteTo(mconsoleRequest(command), &net.UnixAddr{Name: name, Net: "unixgram"}); err != nil {
		return "", err
	}
	var answer bytes.Buffer
	packet := make([]byte, mconsoleHeader+mconsoleData)
	for {
		n, err := conn.Read(packet)
		if err != nil {
			return answer.String(), err
		}
		text, more, err := mconsoleReply(packet[:n])
		if err != nil {
			return answer.String(), err
		}
		answer.Write(text[:min(len(text), max(0, limit-answer.Len()))])
		if !more {
			return answer.String(), nil
		}
	}
}

func mconsoleRequest(command string) []byte {
	packet := make([]byte, mconsoleHeader+mconsoleData)
	binary.NativeEndian.PutUint32(packet[0:], mconsoleMagic)
	binary.NativeEndian.PutUint32(packet[4:], mconsoleVersion)
	n := copy(packet[mconsoleHeader:len(packet)-1], command)
	binary.NativeEndian.PutUint32(packet[8:], uint32(n))
	return packet
}

// mconsoleReply takes one packet of an answer apart.
func mconsoleReply(packet []byte) (text []byte, more bool, err error) {
	if len(packet) < mconsoleHeader {
		return nil, false, errors.New("mconsole: the answer is too short")
	}
	failed := binary.NativeEndian.Uint32(packet[0:])
	more = binary.NativeEndian.Uint32(packet[4:]) != 0
	text = packet[mconsoleHeader:]
	if n := binary.NativeEndian.Uint32(packet[8:]); uint64(n) < uint64(len(text)) {
		text = text[:n]
	}
	// What the kernel sends as a C string has its end counted in.
	text = bytes.TrimRight(text, "\x00")
	if failed != 0 {
		return nil, false, fmt.Errorf("mconsole: %q", text)
	}
	return text, more, nil
}
