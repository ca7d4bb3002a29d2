//! Rows 16 to 23: processes, memory, disks.
