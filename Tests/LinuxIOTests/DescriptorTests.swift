import Glibc
import LinuxIO
import Testing

@Suite("Descriptors", .serialized)
struct DescriptorTests {
    @Test("raising the limit makes the soft one the hard one, and raising it again changes nothing")
    func raisesTheLimit() {
        let before = DescriptorLimit.current()
        #expect(before.soft > 0 && before.soft <= before.hard)
        let raised = DescriptorLimit.raiseToHard()
        #expect(raised.soft == before.hard)
        #expect(raised.hard == before.hard)
        let after = DescriptorLimit.current()
        #expect(after.soft == raised.soft && after.hard == raised.hard)
        let again = DescriptorLimit.raiseToHard()
        #expect(again.soft == raised.soft && again.hard == raised.hard)
    }

    @Test("a limit that was lowered is raised to the hard one")
    func raisesALoweredLimit() throws {
        let hard = DescriptorLimit.current().hard
        // Lower by one only: other tests of the same process open descriptors meanwhile.
        let lowered = hard - 1
        var limit = rlimit(rlim_cur: rlim_t(lowered), rlim_max: rlim_t(hard))
        try #require(unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
        #expect(DescriptorLimit.current().soft == lowered)
        #expect(DescriptorLimit.raiseToHard().soft == hard)
        #expect(DescriptorLimit.current().soft == hard)
    }

    @Test("a descriptor is closed with its owner, and stays open where it was released")
    func closesWithItsOwner() throws {
        var ends: [Int32] = [-1, -1]
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        try #require(unsafe socketpair(AF_UNIX, kind, 0, &ends) == 0)
        let writing = Descriptor(adopting: ends[1])
        let kept = Descriptor(adopting: ends[0]).release()
        var byte: UInt8 = 0
        // Nothing to read while the other end is open; end of file as soon as it is closed.
        let open = unsafe read(kept, &byte, 1)
        #expect(open == -1)
        drop(writing)
        let closed = unsafe read(kept, &byte, 1)
        #expect(closed == 0)
        drop(Descriptor(adopting: kept))
    }

    private func drop(_ descriptor: consuming Descriptor) {}
}
