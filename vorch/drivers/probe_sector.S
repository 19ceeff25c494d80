# A boot sector that proves an accelerator: what real kernels need, in 512 bytes.
#
# The BIOS loads it at 0x7c00 in real mode. It turns on paging and 64-bit long mode, computes with
# the x87 and SSE units (operands in registers and in memory), takes timer interrupts through a
# 64-bit IDT, and only then says "vorch-probe-ok" on the first serial port. An accelerator that
# merely opens, or that carries real mode alone, does not get that far.
#
# On the way it says one letter per stage, so that whoever listens can tell how far it came:
#   r  real mode    l  long mode with paging    f  x87 and SSE    t  timer interrupts
#
# Build (the bytes stand in probe_sector.py as SECTOR, and a test compares):
#   as --64 probe_sector.S -o probe.o
#   ld -m elf_x86_64 -Ttext 0x7c00 --oformat binary probe.o -o probe.bin

        .set PML4, 0x1000               # page tables: one 2 MiB page, mapped to itself
        .set PDPT, 0x2000
        .set PD,   0x3000
        .set IDT,  0x4000
        .set COM1, 0x3f8
        .set TIMER_VECTOR, 0x20

        .text
        .globl _start
        .code16
_start:
        cli
        cld
        ljmp    $0, $flat               # some BIOSes come as 07c0:0000
flat:
        xorl    %eax, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp

        movw    $COM1 + 3, %dx          # 8 data bits, no parity; access to the data register
        movb    $0x03, %al
        outb    %al, %dx
        movw    $COM1, %dx
        movb    $'r', %al
        outb    %al, %dx

        inb     $0x92, %al              # address line 20 on
        orb     $2, %al
        outb    %al, $0x92

        movw    $PML4, %di              # clear the tables and the IDT
        xorl    %eax, %eax
        movw    $0x1000, %cx
        rep stosl
        movw    $PDPT + 3, PML4         # present, writable
        movw    $PD + 3, PDPT
        movw    $0x83, PD               # a 2 MiB page

        movl    $0x620, %eax            # PAE; SSE with its exceptions
        movl    %eax, %cr4
        movl    $PML4, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx       # EFER: long mode enable
        rdmsr
        orw     $0x100, %ax
        wrmsr
        lgdt    gdt_pointer
        movl    $0x80000033, %eax       # paging, native FPU errors, monitor co-processor, protection
        movl    %eax, %cr0
        ljmp    $8, $long_mode

        .code64
long_mode:
        movw    $16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $0x7c00, %esp
        movl    $data, %ebp             # one base for all operands keeps the code short
        movb    $'l', %al
        call    say

        fninit                          # x87: 3.0 * 7.0 through memory and the stack
        fldcw   control_word - data(%rbp)
        fildl   three - data(%rbp)
        fildl   seven - data(%rbp)
        fmulp
        fistpl  scratch - data(%rbp)
        cmpl    $21, scratch - data(%rbp)
        jne     stop
        movaps  vector - data(%rbp), %xmm0           # SSE: 4 + 4, four at a time, and integers
        movaps  %xmm0, %xmm1
        addps   %xmm1, %xmm0
        movaps  %xmm0, scratch - data(%rbp)
        cmpl    $0x41000000, scratch + 12 - data(%rbp)       # 8.0
        jne     stop
        movups  scratch - data(%rbp), %xmm2
        pcmpeqd %xmm0, %xmm2
        pmovmskb %xmm2, %eax
        cmpl    $0xffff, %eax
        jne     stop
        fxsave  save - data(%rbp)         # as a kernel does when it switches tasks
        fxrstor save - data(%rbp)
        movb    $'f', %al
        call    say

        movl    $IDT + TIMER_VECTOR * 16, %edi  # an interrupt gate to `tick`
        movl    $0x80000 + tick, (%rdi)         # selector 8; `tick` lies below 64 KiB
        movw    $0x8e00, 4(%rdi)
        lidt    idt_pointer - data(%rbp)

        movl    $pic_setup, %esi        # interrupt controllers: vectors from 0x20, only the timer
        movl    $10, %ecx
1:      movzbl  (%rsi), %edx
        movb    1(%rsi), %al
        outb    %al, %dx
        addl    $2, %esi
        loop    1b
        movb    $0x34, %al              # timer 0, rate generator, about 1 kHz
        outb    %al, $0x43
        movb    $0xa9, %al
        outb    %al, $0x40
        movb    $0x04, %al
        outb    %al, $0x40

        sti
2:      hlt
        cmpb    $3, ticks - data(%rbp)
        jb      2b
        cli
        movb    $'t', %al
        call    say

        movl    $message, %esi
3:      lodsb
        call    say
        cmpb    $10, %al
        jne     3b
stop:   cli
        hlt
        jmp     stop

tick:   pushq   %rax
        incb    ticks - data(%rbp)
        movb    $0x20, %al              # end of interrupt
        outb    %al, $0x20
        popq    %rax
        iretq

say:    pushq   %rax                    # the letter in al, when the port is ready for it
        movl    $COM1 + 5, %edx
4:      inb     %dx, %al
        testb   $0x20, %al
        jz      4b
        popq    %rax
        movl    $COM1, %edx
        outb    %al, %dx
        ret

pic_setup:
        .byte   0x20, 0x11, 0xa0, 0x11
        .byte   0x21, TIMER_VECTOR, 0xa1, TIMER_VECTOR + 8
        .byte   0x21, 4, 0xa1, 2
        .byte   0x21, 1, 0xa1, 1
pic_masks:
        .byte   0x21, 0xfe, 0xa1, 0xff

message:
        .ascii  "vorch-probe-ok\r\n"
data:
three:  .long   3
seven:  .long   7
control_word:
        .word   0x037f
ticks:  .byte   0

        .balign 16
vector: .float  4.0, 4.0, 4.0, 4.0
gdt:    .quad   0
        .quad   0x00209a0000000000      # 64-bit code
        .quad   0x0000920000000000      # data
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   gdt
idt_pointer:
        .word   0xfff
        .quad   IDT

        .org    510
        .word   0xaa55
scratch:                                # beyond the sector, at 0x7e00
        .set    save, scratch + 0x200
