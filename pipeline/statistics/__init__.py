"""What figures of one sample of rows, seeds or splits say of the next one."""
