package ctl

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// referenceHead is what stands above the commands in docs/reference/lvmsnapctl.md.
const referenceHead = `# lvmsnapctl

Made from the commands themselves by ` + "`make ctl-docs`" + `: do not edit.

%s

Names of objects complete, too: ` + "`source <(lvmsnapctl completion bash)`" + `, and the same for zsh and fish. Man pages and completions as files
are made by ` + "`make ctl-docs`" + ` in ` + "`_output/lvmsnapctl`" + `.

In a pod of the driver: ` + "`kubectl exec -n lvmsnap-system POD -c lvmsnap -- lvmsnapctl get pools`" + `.

| Exit code | |
|---|---|
| 0 | All is well |
| 1 | It could not be looked at, or not put right |
| 2 | The command line is wrong |
| 3 | ` + "`doctor`" + ` found something wrong |
| 4 | There is no such object |

## Flags of every command

` + "```text\n%s```\n"

// Reference writes the page of the documentation.
func Reference(w io.Writer) error {
	root := Documented()
	_, err := fmt.Fprintf(w, referenceHead, root.Long, root.PersistentFlags().FlagUsages())
	if err != nil {
		return err
	}
	return describeCommands(w, root)
}

// Documented are the commands as they are documented, without what depends on the machine.
func Documented() *cobra.Command {
	root := New(Env{Version: "unknown"})
	root.InitDefaultHelpFlag()
	root.DisableAutoGenTag = true
	return root
}

func describeCommands(w io.Writer, parent *cobra.Command) error {
	for _, c := range parent.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		if c.HasAvailableSubCommands() {
			if err := describeCommands(w, c); err != nil {
				return err
			}
			continue
		}
		text := c.Long
		if text == "" {
			text = c.Short + "."
		}
		c.InitDefaultHelpFlag()
		_, err := fmt.Fprintf(w, "\n## %s\n\n%s\n\n```text\n%s\n\n%s```\n", c.CommandPath(), text, c.UseLine(), c.NonInheritedFlags().FlagUsages())
		if err != nil {
			return err
		}
	}
	return nil
}
