package dm

import (
	"context"
	"errors"
)

// cmdDevResume is DM_DEV_SUSPEND without its flag.
const cmdDevResume = 6

// ResumeLayer implements Kernel.
func (c *Control) ResumeLayer(ctx context.Context, group, origin string) error {
	_, _, _, err := c.call(ctx, cmdDevResume, DeviceName(group, origin)+realSuffix, 0)
	if errors.Is(err, ErrNoDevice) {
		return nil
	}
	return err
}
