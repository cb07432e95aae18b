package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestMissingPackages(t *testing.T) {
	absent := map[string]bool{"linux.uml": true, "thin_check": true}
	find := func(name string) (string, error) {
		if absent[name] {
			return "", errors.New("absent")
		}
		return "/sbin/" + name, nil
	}
	if got, want := missingPackages(modeUML, find), []string{"user-mode-linux", "thin-provisioning-tools"}; !slices.Equal(got, want) {
		t.Errorf("uml: %q, want %q", got, want)
	}
	if got, want := missingPackages(modeNative, find), []string{"thin-provisioning-tools"}; !slices.Equal(got, want) {
		t.Errorf("native: %q, want %q", got, want)
	}
}

func TestPackageNames(t *testing.T) {
	if !slices.Contains(packageNames(modeAuto), "user-mode-linux") {
		t.Error("the full list lacks user-mode-linux")
	}
	if slices.Contains(packageNames(modeNative), "user-mode-linux") {
		t.Error("native mode needs no user-mode-linux")
	}
}

func TestInstallCommand(t *testing.T) {
	got := installCommand([]string{"lvm2", "fio"})
	if want := "sudo apt-get update && sudo apt-get install --yes --no-install-recommends lvm2 fio"; got != want {
		t.Errorf("got %q", got)
	}
}

func TestSystemPath(t *testing.T) {
	for _, tc := range []struct{ path, want string }{
		{"/go/bin:/usr/bin", "/go/bin:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/bin"},
		{"", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	} {
		if got := systemPath(tc.path); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.path, got, tc.want)
		}
	}
}

func TestLVMConf(t *testing.T) {
	conf := lvmConf([]string{"^/dev/loop7$"}, "/lock", true)
	for _, want := range []string{
		`global_filter = [ "a|^/dev/loop7$|", "r|.*|" ]`, "udev_sync = 1", `locking_dir = "/lock"`, "use_aio = 0",
	} {
		if !strings.Contains(conf, want) {
			t.Errorf("%q is not in\n%s", want, conf)
		}
	}
	for _, product := range []string{"report_command_log", "output_format"} {
		if strings.Contains(conf, product) {
			t.Errorf("%s belongs to the product, not to the administrator", product)
		}
	}
}
