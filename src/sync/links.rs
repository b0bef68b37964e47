//! Which records belong together, in the table.
