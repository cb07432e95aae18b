package lvmtest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// request is a parsed command line.
type request struct {
	verb    string
	options map[string][]string
	object  string
	target  string   // the second object of lvrename
	extents []string // of lvextend
}

func (r request) has(option string) bool { return len(r.options[option]) > 0 }

func (r request) value(option string) string {
	if v := r.options[option]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// split divides the object into group and volume.
func (r request) split() (group, lv string) {
	group, lv, _ = strings.Cut(r.object, "/")
	return group, lv
}

// devicesOption is common to all of LVM's commands. The fake has no disks to leave out.
const devicesOption = "--devices"

// verb describes one of LVM's commands: its options and whether they take a value, and what it does.
type verb struct {
	values []string
	flags  []string
	run    func(*LVM, request) result
}

func verbs() map[string]verb {
	report := []string{"--units", "--options"}
	return map[string]verb{
		"lvcreate": {
			values: []string{
				"--type", "--virtualsize", "--name", "--setactivationskip", "--activate", "--addtag", "--thinpool", "--permission",
				"--size", "--chunksize", "--stripes", "--stripesize", "--mirrors", "--zero", "--wipesignatures",
			},
			flags: []string{"--snapshot"},
			run:   (*LVM).lvcreate,
		},
		"lvremove": {values: []string{"--select", "--config"}, flags: []string{"--yes"}, run: (*LVM).lvremove},
		"lvrename": {run: (*LVM).lvrename},
		"lvextend": {values: []string{"--size", "--poolmetadatasize"}, run: (*LVM).lvextend},
		"lvchange": {
			values: []string{"--activate", "--addtag", "--deltag"},
			flags:  []string{"--ignoreactivationskip", "--yes", "--refresh"},
			run:    (*LVM).lvchange,
		},
		"vgmknodes": {run: func(l *LVM, r request) result {
			if l.groups[r.object] == nil {
				return notFound(r)
			}
			return success("")
		}},
		"lvs": {values: report, flags: []string{"--nosuffix"}, run: (*LVM).lvs},
		"vgs": {values: report, flags: []string{"--nosuffix"}, run: (*LVM).vgs},
	}
}

// execute runs a command. Called with the lock.
func (l *LVM) execute(args []string, dies string) result {
	if len(args) == 0 {
		return failure(exitNoSuchCommand, "No command.")
	}
	v, ok := verbs()[args[0]]
	if !ok {
		return failure(exitNoSuchCommand, fmt.Sprintf("No such command '%s'.  Try 'help'.", args[0]))
	}
	r := request{verb: args[0], options: map[string][]string{}}
	for rest := args[1:]; len(rest) > 0; rest = rest[1:] {
		word := rest[0]
		switch {
		case slices.Contains(v.flags, word):
			r.options[word] = append(r.options[word], "")
		case slices.Contains(v.values, word), word == devicesOption:
			if len(rest) < 2 {
				return usage(fmt.Sprintf("%s: option '%s' requires an argument", r.verb, word))
			}
			r.options[word] = append(r.options[word], rest[1])
			rest = rest[1:]
		case strings.HasPrefix(word, "-"):
			return usage(fmt.Sprintf("%s: unrecognized option '%s'", r.verb, word))
		case r.verb == "lvextend" && r.object != "" && strings.HasPrefix(word, "/"):
			r.extents = append(r.extents, word)
		case r.verb == "lvrename" && r.object != "" && r.target == "":
			r.target = word
		case r.verb == "lvcreate" && r.has("--thinpool"), r.object != "":
			return usage("lvmtest: more than one object in " + strings.Join(args, " "))
		default:
			r.object = word
		}
	}
	if dies != "" {
		r.options[dies] = []string{""}
	}
	return v.run(l, r)
}

// These mark a request that a PhantomNext or JamNext fault hit. No argv can have them.
const (
	phantomOption = "phantom"
	jamOption     = "jam"
)

// parseSize reads 1048576b. LVM takes whole sectors only.
func parseSize(option, s string) (int64, *result) {
	number, ok := strings.CutSuffix(s, "b")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || n < 0 {
		r := usage(fmt.Sprintf("Invalid argument for %s: %s", option, s))
		return 0, &r
	}
	if extra := n % sectorBytes; extra != 0 {
		r := usage(
			fmt.Sprintf("Size is not a multiple of 512. Try using %d or %d.", n-extra, n-extra+sectorBytes),
			fmt.Sprintf("Invalid argument for %s: %s", option, s))
		return 0, &r
	}
	return n, nil
}
