package mount

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// flagPattern is one option of mount -o. A comma begins another option, except between quotes, where kubelet's
// SELinux contexts have it (context="system_u:object_r:container_file_t:s0:c1,c2"); a quote that is not closed
// would swallow the options after it.
var flagPattern = regexp.MustCompile(`^(?:[^",\\\x00-\x1f\x7f]+|[a-z_]+="[^"\\\x00-\x1f\x7f]*")$`)

// flagsRefused would turn the mount into something else, or choose another device.
var flagsRefused = []string{"bind", "rbind", "move", "remount", "loop", "offset", "sizelimit", "device", "helper", "uhelper"}

// CheckFlags validates mount flags. Errors wrap ErrFlag and do not have the flag in them.
func CheckFlags(flags []string) error {
	for i, flag := range flags {
		if !flagPattern.MatchString(flag) {
			return fmt.Errorf("%w %d is empty or has a comma, a quote, a backslash or a control character in it", ErrFlag, i)
		}
		// The name alone is no secret.
		name, _, _ := strings.Cut(flag, "=")
		name = strings.TrimSpace(name)
		// mount(8) does more than mount for those (X-mount.subdir, X-mount.owner), by paths.
		if slices.Contains(flagsRefused, name) || strings.HasPrefix(strings.ToLower(name), "x-mount.") {
			return fmt.Errorf("%w %d: %s is not for volumes", ErrFlag, i, name)
		}
	}
	return nil
}

// maskFlags takes the flags out of what mount(8) said, which quotes the one that it did not like.
func maskFlags(text string, flags []string) string {
	var secrets []string
	for _, flag := range flags {
		secrets = append(secrets, flag)
		if name, value, ok := strings.Cut(flag, "="); ok {
			secrets = append(secrets, name, value, strings.Trim(value, `"`))
		}
	}
	// The longest first, so that no part of one is left when another is taken out of it.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		// Whole words only, or else "ro" would make nonsense of "error".
		word := regexp.MustCompile(`(^|[^0-9A-Za-z_])` + regexp.QuoteMeta(secret) + `($|[^0-9A-Za-z_])`)
		text = word.ReplaceAllString(text, "${1}<masked>${2}")
	}
	return text
}
