package mount

import "os"

// BindInSteps binds as on old kernels.
func BindInSteps(source, target string, readOnly bool) error {
	from, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	t, err := tree{}.ensureTarget(target, true)
	if err != nil {
		return err
	}
	defer t.close()
	return bindInSteps(from, t, readOnly)
}

// MountIDs are what mountIDs says, and what it says on old kernels.
func MountIDs(path string) (now, old int, err error) {
	parent, name, err := tree{}.openParent(path)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = parent.Close() }()
	if now, err = mountID(parent, name); err == nil {
		old, err = mountIDOfOpen(parent, name)
	}
	return now, old, err
}
