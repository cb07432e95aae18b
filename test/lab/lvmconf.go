package main

import (
	"fmt"
	"strings"
)

// lvmConf is the lvm.conf of the lab's machine. It plays the part of an
// administrator's /etc/lvm/lvm.conf, so it sets only what a small machine without
// LVM's daemons needs: accept lists regular expressions for the devices that
// LVM may see.
func lvmConf(accept []string, lockDir string, udev bool) string {
	var filter strings.Builder
	for _, expression := range accept {
		fmt.Fprintf(&filter, "%q, ", "a|"+expression+"|")
	}
	withUdev := 0
	if udev {
		withUdev = 1
	}
	return fmt.Sprintf(`# Made by the lab: an administrator's lvm.conf.
devices {
	# The global filter, which no --config of a command gets around.
	global_filter = [ %s"r|.*|" ]
	use_devicesfile = 0
	hints = "none"
	obtain_device_list_from_udev = 0
	external_device_info_source = "none"
}
activation {
	udev_sync = %d
	udev_rules = %d
	monitoring = 0
	reserved_stack = 0
	reserved_memory = 0
}
backup {
	backup = 0
	archive = 0
}
global {
	locking_dir = %q
	use_lvmpolld = 0
	notify_dbus = 0
	use_aio = 0
}
`, filter.String(), withUdev, withUdev, lockDir)
}
