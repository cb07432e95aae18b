package lvm

import (
	"fmt"
	"regexp"
)

// lvm(8), "VALID NAMES": letters, digits and + _ . -, not beginning with a hyphen, not . or ..
var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9+_.][A-Za-z0-9+_.-]*$`)
	// lvm(8), tags: letters, digits and _ + . - / = ! : # &, up to 1024 characters, not beginning with a
	// hyphen. We do without # and !, which the shell could take for a comment or a history reference.
	tagPattern = regexp.MustCompile(`^[A-Za-z0-9_+.][A-Za-z0-9_+./=:&-]*$`)
	// argPattern is every argument that is ever given to LVM. Nothing in it can split or quote a word; the
	// exclamation mark is for selections (lvmreport(7)), and the shell expands no history.
	argPattern = regexp.MustCompile(`^[A-Za-z0-9_+./=!:&,%@-]+$`)
)

const (
	maxNameLength = 127
	maxTagLength  = 1024
)

// ValidateName checks the name of a volume group or logical volume.
func ValidateName(name string) error {
	if len(name) > maxNameLength || name == "." || name == ".." || !namePattern.MatchString(name) {
		return fmt.Errorf("%q is not a valid LVM name (letters, digits, + _ . -, not beginning with -, at most %d)", name, maxNameLength)
	}
	return nil
}

// ValidateTag checks an LV tag.
func ValidateTag(tag string) error {
	if len(tag) > maxTagLength || !tagPattern.MatchString(tag) {
		return fmt.Errorf("%q is not a tag that this driver writes (letters, digits, _ + . - / = : &, at most %d)", tag, maxTagLength)
	}
	return nil
}

// validateArgs is the last gate before LVM, whatever the callers forgot.
func validateArgs(args []string) error {
	for _, a := range args {
		if !argPattern.MatchString(a) {
			return fmt.Errorf("refusing to run %s: argument %q has characters that no LVM argument of this driver has", args[0], a)
		}
	}
	return nil
}
