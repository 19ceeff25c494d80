# The part of a Linux boot image that a boot loader jumps to: unpacks the kernel by LZ4 and starts it.
#
# Debian's own unpacks XZ, which is half of all that an emulated processor does for a boot.
# The 16-bit part before this one (the processor's and the memory's test, the screen) stays as it is
# and comes here in 32-bit mode, with flat segments and the boot parameters' address in ESI.
#
# Behind this page lie the blocks, each a length of four bytes and what LZ4 packed, and a length of 0.
#
# Build (the bytes stand in fast_kernel.py as START, and a test compares):
#   as --64 fast_kernel.S -o fast_kernel.o
#   ld -m elf_x86_64 -Ttext 0x100000 --oformat binary fast_kernel.o -o fast_kernel.bin

        .set BLOCKS, 0x101000           # behind this page
        .set PAGES,  0x200000           # page tables, where packed blocks were
        .set KERNEL, 0x1000000          # where Debian's kernels are linked to run
        .set PRESENT, 0x03              # and to be written to
        .set LARGE,   0x83              # a page of 2 MiB

        .macro  length                  # into ECX: 15 there means that more of it follows
        cmpl    $15, %ecx
        jne     2f
1:      movzbl  (%esi), %eax
        incl    %esi
        addl    %eax, %ecx
        cmpl    $255, %eax
        je      1b
2:
        .endm

        .text
        .globl _start
        .code32
_start:
        jmp     begin
        .balign 4
end_of_kernel:                          # filled in by fast_kernel.py
        .long   0
begin:
        cli
        cld
        movl    %esi, parameters
        movl    $BLOCKS, %esi
        movl    $KERNEL, %edi
block:
        lodsl
        testl   %eax, %eax
        jz      unpacked
        leal    (%esi,%eax), %ebx       # where this block ends
sequence:
        movzbl  (%esi), %edx            # how many bytes as they are, how many that were there before
        incl    %esi
        movl    %edx, %ecx
        shrl    $4, %ecx
        length
        rep movsb
        cmpl    %ebx, %esi
        jae     block                   # a block ends with bytes as they are
        movzwl  (%esi), %ebp            # how far back
        addl    $2, %esi
        movl    %edx, %ecx
        andl    $15, %ecx
        length
        addl    $4, %ecx
        movl    %esi, %eax
        movl    %edi, %esi
        subl    %ebp, %esi
        rep movsb                       # byte by byte: what it copies may be what it just wrote
        movl    %eax, %esi
        jmp     sequence

unpacked:                               # memory is not empty after a restart, and the kernel's end is
        movl    end_of_kernel, %ecx
        subl    %edi, %ecx
        xorl    %eax, %eax
        rep stosb

        movl    $PAGES, %edi            # the first 4 GiB, mapped to themselves
        movl    $0x6000 / 4, %ecx
        rep stosl
        movl    $PAGES + 0x1000 + PRESENT, PAGES
        movl    $PAGES + 0x2000 + PRESENT, %eax
        movl    $PAGES + 0x1000, %edi
        movl    $4, %ecx
directory:
        movl    %eax, (%edi)
        addl    $0x1000, %eax
        addl    $8, %edi
        loop    directory
        movl    $LARGE, %eax
        movl    $PAGES + 0x2000, %edi
        movl    $2048, %ecx
page:
        movl    %eax, (%edi)
        addl    $0x200000, %eax
        addl    $8, %edi
        loop    page

        movl    %cr4, %eax
        orl     $0x20, %eax             # PAE
        movl    %eax, %cr4
        movl    $PAGES, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx       # EFER
        rdmsr
        orl     $0x100, %eax            # LME
        wrmsr
        lgdt    table
        movl    %cr0, %eax
        orl     $0x80000001, %eax       # PG, PE
        movl    %eax, %cr0
        ljmp    $0x10, $long_mode

        .code64
long_mode:
        movl    $0x18, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        xorl    %eax, %eax
        movl    %eax, %fs
        movl    %eax, %gs
        movl    parameters, %esi
        movl    $KERNEL, %eax
        jmp     *%rax

        .balign 8
descriptors:                            # as Linux's boot protocol wants them
        .quad   0, 0
        .quad   0x00af9a000000ffff      # 0x10: 64-bit code
        .quad   0x00cf92000000ffff      # 0x18: data
table:
        .word   table - descriptors - 1
        .long   descriptors
        .balign 4
parameters:
        .long   0
