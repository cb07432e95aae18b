package main

import (
	"net"
	"path/filepath"
	"testing"

	"k8s.io/klog/v2"
)

// systemd's side of Type=notify: a datagram on the socket that it names (sd_notify(3)).
func TestNotifyReady(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	notifyReady(klog.Background())
	buffer := make([]byte, 64)
	n, err := conn.Read(buffer)
	if err != nil || string(buffer[:n]) != "READY=1" {
		t.Errorf("got %q, %v", buffer[:n], err)
	}
	// Started by nobody who wants to know.
	t.Setenv("NOTIFY_SOCKET", "")
	notifyReady(klog.Background())
}
