package lvm

// The fields of the reports, for recording them.
const (
	LVFields = lvFields
	VGFields = vgFields
)
