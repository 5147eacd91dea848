import LinuxIO
import Synchronization
import Testing

@Suite("Threads of the operating system")
struct ThreadsTests {
    @Test("who waits a second time for one that has ended waits for nobody, and takes no other's end away")
    func joinedTwice() {
        let first = OSThread(name: "first") {}
        first.join()
        let mayEnd = Waiter()
        let hasEnded = Atomic<Bool>(false)
        // The system likes to give it the handle of the first.
        let second = OSThread(name: "second") {
            mayEnd.wait()
            hasEnded.store(true, ordering: .relaxed)
        }
        first.join()
        let endedEarly = hasEnded.load(ordering: .relaxed)
        #expect(!endedEarly)
        mayEnd.signal()
        second.join()
        let ended = hasEnded.load(ordering: .relaxed)
        #expect(ended)
    }
}
