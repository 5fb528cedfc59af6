// Debian's libyaml-cpp.a is compiled for programs, not for shared objects: its only reference that the linker refuses
// here is glibc's __libc_single_threaded (a hint to skip atomic operations). This definition is ours alone (hidden)
// and says "not single threaded", which is always right.
extern "C" {
__attribute__((visibility("hidden"))) char __libc_single_threaded =
    0;  // NOLINT(bugprone-reserved-identifier)
}
