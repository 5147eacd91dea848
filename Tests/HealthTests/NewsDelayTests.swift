import Health
import Primitives
import Testing

@Suite struct NewsDelayTests {
    private func time(_ milliseconds: Int64) -> MonotonicTime { moment(.milliseconds(milliseconds)).monotonic }

    @Test("a node measures its own words; of several under way the first, and none that may be lost")
    func measured() {
        var delay = NewsDelay()
        delay.heard("a", at: time(1))
        #expect(delay.count == 0)
        delay.said("a", at: time(10))
        delay.said("a", at: time(12))
        delay.said("b", at: time(13))
        delay.heard("a", at: time(17))
        delay.heard("a", at: time(18))
        #expect(delay.count == 1)
        #expect(delay.last == .milliseconds(7))
        delay.heard("b", at: time(14))
        #expect(delay.last == .milliseconds(1))
        #expect(delay.longest == .milliseconds(7))
        #expect(delay.total == .milliseconds(8))
        delay.said("a", at: time(20))
        delay.interrupted()
        delay.heard("a", at: time(900))
        #expect(delay.count == 2)
    }
}
