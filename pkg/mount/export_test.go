package mount

// BindByPath is what binds on old kernels.
var BindByPath = (*Host).bindByPath
