//! Rows 24 to 35, 39, 44, 46 and 47: backends, networks, storms.
