package ctl

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
)

// What a bundle has of the kernel's log and of the driver.

// kernelLines are the lines of the kernel log that are about the groups.
func (h *Host) kernelLines(ctx context.Context) []byte {
	log, err := kernelLog()
	if err != nil {
		return []byte(err.Error() + "\n")
	}
	var devices []dm.Device
	for _, group := range h.Groups {
		more, err := h.Kernel.Devices(ctx, group)
		if err != nil {
			return []byte(err.Error() + "\n")
		}
		devices = append(devices, more...)
	}
	return aboutDevices(log, devices)
}

// nameless are lines that name no device: of dm-thin's metadata, and of tasks that hang.
var nameless = regexp.MustCompile(`device-mapper: (space map|block manager|btree|array|transaction manager|bufio|persistent snapshot)\b|\bblocked for more than\b`)

func aboutDevices(log []byte, devices []dm.Device) []byte {
	var names []string
	for _, d := range devices {
		names = append(names, regexp.QuoteMeta(d.Name), fmt.Sprintf("dm-%d", d.Minor), fmt.Sprintf("%d:%d", d.Major, d.Minor))
	}
	named := regexp.MustCompile(`(^|[^-\w])(` + strings.Join(names, "|") + `)($|[^-\w])`)
	return lines(log, nil, func(line string) bool {
		return len(names) > 0 && named.MatchString(strings.TrimSuffix(line, "\n")) || nameless.MatchString(line)
	})
}

// kernelLog is all of it that the kernel still has. syslog(2)
func kernelLog() ([]byte, error) {
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil {
		return nil, fmt.Errorf("kernel log: %w", err)
	}
	buf := make([]byte, n)
	n, err = unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buf)
	if err != nil {
		return nil, fmt.Errorf("kernel log: %w", err)
	}
	return buf[:n], nil
}

// maxMetricsBytes is more than the driver has with thousands of pools.
const maxMetricsBytes = 16 << 20

// metrics are the driver's, of the address that it was given.
func metrics(ctx context.Context, address string) []byte {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return []byte("no driver that serves metrics (--metrics-address) runs here\n")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	text, err := fetch(ctx, "http://"+net.JoinHostPort(host, port)+"/metrics")
	if err != nil {
		return []byte(err.Error() + "\n")
	}
	return text
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, res.Status)
	}
	return io.ReadAll(io.LimitReader(res.Body, maxMetricsBytes))
}
