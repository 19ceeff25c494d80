"""What a test disk begins with whose machine only has to run: a boot sector that sleeps."""

# sti; hlt; jump back to the hlt. One that jumps to itself would keep a whole processor busy for as
# long as its machine runs, and there are few here.
SLEEPS = b"\xfb\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"
