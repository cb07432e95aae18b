package ctl_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/ctl"
	"github.com/lvmsnap/lvmsnap/pkg/dm"
)

// Of the kernel log a bundle has what is about the groups, and nothing of others.
func TestBundleOfTheKernelLog(t *testing.T) {
	const ours = `[  1.5] device-mapper: thin: 253:4: reached low water mark for data device: sending event.
[  2.5] EXT4-fs (dm-7): mounted filesystem
[  3.5] device-mapper: ioctl: unable to remove open device data-csi--v--x
[  4.5] Buffer I/O error on dev dm-4, logical block 0, async page read
[  5.5] device-mapper: space map metadata: unable to allocate new metadata block
[  6.5] INFO: task lvcreate:17 blocked for more than 120 seconds.
[  7.5] data-csi--v--x: rw=1, want=9
`
	const theirs = `[ 11.5] device-mapper: thin: 253:40: reached low water mark for data device: sending event.
[ 12.5] EXT4-fs (dm-70): mounted filesystem of vault
[ 13.5] device-mapper: ioctl: unable to remove open device vault-secret
[ 14.5] device-mapper: table: 1253:4: crypt: unknown
[ 15.5] device-mapper: ioctl: cannot rename data-csi--v--x2 or other-data-csi--v--x
[ 16.5] usb 1-1: new device
`
	var mixed strings.Builder
	a, b := strings.SplitAfter(ours, "\n"), strings.SplitAfter(theirs, "\n")
	for i := range a {
		mixed.WriteString(a[i])
		if i < len(b) {
			mixed.WriteString(b[i])
		}
	}
	got := ctl.AboutDevices(mixed.String(), device("data-csi--v--x", 7), device("data-pool-tpool", 4))
	if got != ours {
		t.Errorf("got\n%swant\n%s", got, ours)
	}
	if got := ctl.AboutDevices(theirs); got != "" {
		t.Errorf("without devices: %s", got)
	}
}

func device(name string, minor uint32) dm.Device {
	return dm.Device{Name: name, Info: dm.Info{Major: 253, Minor: minor}}
}

// The driver's metrics are in a bundle, from where it was told to serve them, and its log.
func TestBundleOfTheDriver(t *testing.T) {
	n, _, _ := shop(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			_, _ = w.Write([]byte("lvmsnap_up 1"))
		}
	}))
	defer server.Close()
	n.run(map[int]program{50: {comm: "lvmsnap", state: "S", parent: 1, line: "lvmsnap --metrics-address=" + strings.TrimPrefix(server.URL, "http://")}})
	n.programs["journalctl"] = func(args []string) (string, int) { return strings.Join(args[:2], " "), 0 }
	if code := n.ctl("support-bundle", "--file", "-"); code != ctl.ExitOK {
		t.Fatalf("exit code %d: %s", code, n.err.String())
	}
	files := unpack(t, n.out.Bytes())
	for name, want := range map[string]string{"metrics.txt": "lvmsnap_up 1", "driver.log": "--unit lvmsnap"} {
		if got := files["lvmsnap-support/"+name]; got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := files["lvmsnap-support/processes.txt"]; !strings.Contains(got, "50\tlvmsnap\tS") || strings.Contains(got, "metrics-address") {
		t.Errorf("processes.txt: %q", got)
	}
}
