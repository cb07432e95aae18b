package main

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeKernel answers each command with the packets of its answer.
func fakeKernel(t *testing.T, answers map[string][][]byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "mconsole")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		packet := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUnix(packet)
			if err != nil {
				return
			}
			if binary.NativeEndian.Uint32(packet) != 0xcafebabe || binary.NativeEndian.Uint32(packet[4:]) != 2 || n != 524 {
				t.Errorf("a request of %d bytes: %x", n, packet[:12])
			}
			for _, answer := range answers[string(packet[12:12+binary.NativeEndian.Uint32(packet[8:])])] {
				_, _ = conn.WriteToUnix(answer, from)
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return name
}

func answerPacket(failed, more uint32, text string) []byte {
	packet := binary.NativeEndian.AppendUint32(nil, failed)
	packet = binary.NativeEndian.AppendUint32(packet, more)
	packet = binary.NativeEndian.AppendUint32(packet, uint32(len(text)+1))
	return append(append(packet, text...), 0)
}

func TestAskKernel(t *testing.T) {
	name := fakeKernel(t, map[string][][]byte{
		"version":  {answerPacket(0, 0, "Linux 6.1")},
		"sysrq t":  {answerPacket(0, 1, "one\n"), answerPacket(0, 1, strings.Repeat("x", 500)), answerPacket(0, 0, "end\n")},
		"broken":   {answerPacket(0, 1, "only the beginning")},
		"sysrq ?":  {answerPacket(1, 0, "Unknown command")},
		"nonsense": {{1, 2, 3}},
	})
	const soon = 200 * time.Millisecond
	for _, tc := range []struct {
		command, want, failure string
		limit                  int
		timeout                time.Duration
	}{
		{"version", "Linux 6.1", "", 100, time.Minute},
		{"sysrq t", "one\n" + strings.Repeat("x", 500) + "end\n", "", 1000, time.Minute},
		{"sysrq t", "one\nxx", "", 6, time.Minute},
		{"broken", "only the beginning", "i/o timeout", 100, soon},
		{"silence", "", "i/o timeout", 100, soon},
		{"sysrq ?", "", "Unknown command", 100, time.Minute},
		{"nonsense", "", "too short", 100, time.Minute},
	} {
		got, err := askKernel(name, tc.command, tc.limit, tc.timeout)
		if got != tc.want || (err == nil) != (tc.failure == "") || err != nil && !strings.Contains(err.Error(), tc.failure) {
			t.Errorf("%s: got %q, error %v", tc.command, got, err)
		}
	}
	if _, err := askKernel(name+"-none", "version", 100, time.Minute); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nobody there: %v", err)
	}
}
