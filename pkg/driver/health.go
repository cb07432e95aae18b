package driver

import (
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// volumeHealth is what CSI says about a volume's conditions; nothing wrong is an empty list.
func volumeHealth(v storage.Volume) *csi.VolumeHealth {
	return &csi.VolumeHealth{VolumeId: v.ID, HealthStatuses: healthEntries(v.Conditions)}
}

// healthEntries always has a reason, and never the same status and reason twice: "The Plugin MUST NOT return
// multiple VolumeHealthEntry messages for the same volume with the same (status, reason)" (CSI spec). What several
// snapshots of a volume have in common is told in one message.
func healthEntries(conditions []storage.Condition) []*csi.VolumeHealth_VolumeHealthEntry {
	type key struct {
		status csi.VolumeHealthErrorType
		reason string
	}
	seen := make(map[key]*csi.VolumeHealth_VolumeHealthEntry)
	var entries []*csi.VolumeHealth_VolumeHealthEntry
	for _, c := range conditions {
		k := key{healthErrorType(c.Severity), clip(c.Reason)}
		if k.reason == "" {
			k.reason = string(c.Severity)
		}
		if entry := seen[k]; entry != nil {
			if c.Message != "" && !strings.Contains(entry.Message, c.Message) {
				entry.Message = clip(entry.Message + "; " + c.Message)
			}
			continue
		}
		seen[k] = &csi.VolumeHealth_VolumeHealthEntry{Status: k.status, Reason: k.reason, Message: clip(c.Message)}
		entries = append(entries, seen[k])
	}
	return entries
}

func healthErrorType(s storage.Severity) csi.VolumeHealthErrorType {
	switch s {
	case storage.SeverityDegraded:
		return csi.VolumeHealthErrorType_DEGRADED
	case storage.SeverityInaccessible:
		return csi.VolumeHealthErrorType_INACCESSIBLE
	case storage.SeverityDataLoss:
		return csi.VolumeHealthErrorType_DATA_LOSS
	default:
		return csi.VolumeHealthErrorType_UNKNOWN_VOLUME_HEALTH_TYPE
	}
}
