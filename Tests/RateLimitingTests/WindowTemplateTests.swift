import Hiredis
import Identity
import LinuxIO
import Primitives
import RedisClient
import Testing

@testable import RateLimiting

@Suite("Templates of the transaction")
struct WindowTemplateTests {
    private static func clock(_ microseconds: Int64) -> ServerClock {
        var clock = ServerClock(window: .seconds(1))
        let now = MonotonicTime(nanoseconds: 1_000_000_000)
        clock.observe(
            ServerTimeSample(
                sentAt: now, receivedAt: now + .microseconds(80), time: RedisTime(microseconds: microseconds)))
        return clock
    }

    @Test(
        "what a template writes is byte for byte what hiredis formats",
        arguments: [
            "203.0.113.7", "10.0.0.1", "1.2.3.4", "255.255.255.255", "2001:db8::1", "2001:db8:1:2:3:4:5:6", "::1",
            "fe80::",
        ])
    func sameBytes(address: String) throws {
        let key = WindowKey(Policy(name: "default", limit: 100, window: .seconds(1), burst: 10))
        let names = MemberNames(boot: 0x0123_4567_89ab_cdef, worker: 1)
        let templates = WindowTemplates(key)
        // Years 2001 to 2286 have 16 digits; the others go the long way, as do names of more than twelve.
        let starts: [Int64] = [1_795_000_000_000_000, 1_795_000_123_456_789, 1_000_000_000_000_001, 12_345]
        for (round, start) in starts.enumerated() {
            for sequence in [0, 1, 0xffff_ffff, (1 << 48) - 4, 1 << 48] as [UInt64] {
                for (count, largest) in [(1, 1), (3, 1), (4, 1), (5, 1), (48, 1), (256, 1), (5, 2)] {
                    let transaction = WindowTransaction(
                        SubjectKey(try #require(IPAddress(address))), first: sequence, count: count, largest: largest,
                        clock: Self.clock(start), at: MonotonicTime(nanoseconds: 2_000_000_000 + Int64(round)))
                    for hasTime in [false, true] {
                        var direct = CommandWriter()
                        transaction.write(key, names, hasTime: hasTime, to: &direct)
                        var filled = CommandWriter()
                        templates.write(transaction, names, hasTime: hasTime, to: &filled)
                        let expected = direct.output.text
                        #expect(filled.output.text == expected)
                        #expect(expected.contains("TIME") != hasTime)
                    }
                }
            }
        }
    }

    @Test(
        "a member says whose it is: boot value, worker, the limiter after a reload, and a number of the cluster's server",
        arguments: [
            (0, 0, "0123456789abcdef-1-000000000005"), (3, 0, "0123456789abcdef-1.3-000000000005"),
            (0, 2, "0123456789abcdef-1-2000000000005"),
        ])
    func names(era: Int, shard: Int, expected: String) {
        var names = MemberNames(boot: 0x0123_4567_89ab_cdef, worker: 1, era: era, shard: shard)
        _ = names.take(5)
        var buffer = ByteBuffer()
        names.write(names.take(1), to: &buffer)
        #expect(String(decoding: buffer.array, as: UTF8.self) == expected)
    }

    @Test("a template is made where the times have their usual width")
    func made() throws {
        let key = WindowKey(Policy(name: "default", limit: 100, window: .seconds(1), burst: 10))
        let names = MemberNames(boot: 7, worker: 0)
        let transaction = WindowTransaction(
            SubjectKey(try #require(IPAddress("203.0.113.7"))), first: 5, count: 1,
            clock: Self.clock(1_795_000_000_000_000), at: MonotonicTime(nanoseconds: 2_000_000_000))
        #expect(WindowTemplate(transaction, key, names) != nil)
    }
}
