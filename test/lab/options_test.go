package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func noEnv(string) string { return "" }

func TestParseOptions(t *testing.T) {
	opts, err := parseOptions([]string{
		"--mode", "uml", "--disks=3", "--disk-size", "512MiB", "--memory=2G", "--timeout", "90s", "--install=false",
		"--verbose", "--hung-after", "2m", "--hung-retries=1", "--network", "n", "--disk", "a", "--disk=b", "cmd", "--disks", "7", "--", "x",
	}, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if opts.mode != modeUML || opts.disks != 3 || opts.diskSizeBytes != 512<<20 || opts.memoryBytes != 2<<30 ||
		opts.timeout != 90*time.Second || opts.install || !opts.verbose || opts.hungAfter != 2*time.Minute || opts.hungRetries != 1 || opts.network != "n" ||
		!slices.Equal(opts.diskFiles, []string{"a", "b"}) {
		t.Errorf("got %+v", opts)
	}
	if want := []string{"cmd", "--disks", "7", "--", "x"}; !slices.Equal(opts.argv, want) {
		t.Errorf("command %q, want %q: its flags are its own", opts.argv, want)
	}
}

func TestParseOptionsDefaults(t *testing.T) {
	env := func(name string) string { return map[string]string{"LAB_MODE": "native"}[name] }
	opts, err := parseOptions([]string{"--", "cmd", "-v"}, env)
	if err != nil {
		t.Fatal(err)
	}
	if opts.mode != modeNative || opts.disks != 2 || opts.diskSizeBytes != 8<<30 || opts.memoryBytes != 1<<30 ||
		opts.timeout != 30*time.Minute || !opts.install || opts.verbose || opts.hungAfter != 90*time.Second || opts.hungRetries != 0 {
		t.Errorf("got %+v", opts)
	}
	if want := []string{"cmd", "-v"}; !slices.Equal(opts.argv, want) {
		t.Errorf("command %q, want %q", opts.argv, want)
	}
	opts, err = parseOptions([]string{"--mode=uml", "cmd"}, env)
	if err != nil || opts.mode != modeUML {
		t.Errorf("mode %q, error %v: the flag must win over LAB_MODE", opts.mode, err)
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"", "no command"},
		{"--mode kvm x", `--mode "kvm"`},
		{"--disks 16 x", "--disks 16"},
		{"--hung-after 9s x", "--hung-after 9s"},
		{"--hung-retries -1 x", "--hung-retries -1"},
		{"--disks -1 x", "--disks -1"},
		{"--disk-size 8X x", "is not a size"},
		{"--disk-size 8KM x", "unknown unit"},
		{"--disk-size 5000 x", "multiple of 4KiB"},
		{"--disk-size 99999999999999T x", "is not a size"},
		{"--memory 1M x", "at least 128MiB"},
		{"--timeout -1s x", "--timeout"},
		{"--nonsense x", "unknown flag"},
	} {
		_, err := parseOptions(strings.Fields(tc.args), noEnv)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: error %v, want %q in it", tc.args, err, tc.want)
		}
	}
	for _, args := range [][]string{{"--check"}, {"--packages"}} {
		if _, err := parseOptions(args, noEnv); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
	if _, err := parseOptions([]string{"--help"}, noEnv); !errors.Is(err, pflag.ErrHelp) {
		t.Errorf("--help: error %v", err)
	}
}

func TestNetworkSocket(t *testing.T) {
	if name, err := networkSocket(modeNative, ""); name != "" || err != nil {
		t.Errorf("got %q, %v: no network was asked for", name, err)
	}
	if name, err := networkSocket(modeUML, "/tmp/a/../net"); name != "/tmp/net" || err != nil {
		t.Errorf("got %q, %v", name, err)
	}
	for _, tc := range []struct{ mode, name string }{
		{modeNative, "/tmp/net"}, {modeUML, "/tmp/a b"}, {modeUML, "/tmp/a,b"}, {modeUML, "/tmp/a=b"}, {modeUML, "/" + strings.Repeat("x", 107)},
	} {
		if name, err := networkSocket(tc.mode, tc.name); err == nil {
			t.Errorf("%s, %q: got %q, want an error", tc.mode, tc.name, name)
		}
	}
}

func TestByteSize(t *testing.T) {
	for _, tc := range []struct {
		text  string
		bytes int64
		back  string
	}{
		{"4096", 4096, "4KiB"},
		{"1000b", 1000, "1000"},
		{"8GiB", 8 << 30, "8GiB"},
		{"512m", 512 << 20, "512MiB"},
		{"1T", 1 << 40, "1024GiB"},
	} {
		var size byteSize
		if err := size.Set(tc.text); err != nil || int64(size) != tc.bytes || size.String() != tc.back {
			t.Errorf("%s: %d (%s), error %v; want %d (%s)", tc.text, size, size.String(), err, tc.bytes, tc.back)
		}
	}
	for _, text := range []string{"", "G", "-1G", "0", "1.5G", "1Q", "9G9G"} {
		var size byteSize
		if err := size.Set(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, size)
		}
	}
}
