import Glibc
import LinuxIO
import Primitives
import Synchronization
import Testing

@testable import Gateway

@Suite("A log whose reader stands still", .timeLimit(.minutes(1)))
struct LogSinkTests {
    private static func line(_ number: Int) -> [UInt8] {
        Array("\(number) \(String(repeating: "x", count: 990))\n".utf8)
    }

    /// A pipe that holds one page.
    private static func pipe() throws -> (reading: Int32, writing: Int32) {
        var ends: [Int32] = [-1, -1]
        try #require(unsafe Glibc.pipe(&ends) == 0)
        let (setSize, page) = (Int32(1_031), Int32(4_096))
        try #require(fcntl(ends[1], setSize, page) >= 4_096)
        return (ends[0], ends[1])
    }

    @Test("nobody waits, what finds no room is counted, and both ends of it are told once")
    func overrun() throws {
        let (raw, writing) = try Self.pipe()
        defer { close(raw) }
        let losses = LogLosses()
        let told = Mutex<[String]>([])
        let sink = LogSink(
            Descriptor(adopting: writing), name: "the log", losses: losses, bytesMax: 20_000, closeTime: .seconds(20))
        let isBack = Waiter()
        sink.listen { message, details in
            told.withLock { $0.append(details["lost"].map { "\(message): \($0)" } ?? message) }
            if details["lost"] != nil { isBack.signal() }
        }
        let count = 200
        for number in 0..<count { sink.write(Self.line(number), count: 1) }
        #expect(!sink.flush(atMost: .milliseconds(50)))
        let lost = losses.lines
        #expect(lost > 100 && lost < count)
        #expect(told.withLock { $0 } == ["the log is written too slowly, and lines of it are lost"])
        var text: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 65_536)
        while text.count(where: { $0 == UInt8(ascii: "\n") }) < count - lost {
            let n = unsafe read(raw, &piece, piece.count)
            try #require(n > 0)
            text += piece[..<n]
        }
        isBack.wait()
        #expect(told.withLock { $0.last } == "the log keeps up again: \(lost)")
        #expect(told.withLock { $0.count } == 2)
        // What found room came out, in order and whole.
        let numbers = String(decoding: text, as: UTF8.self).split(separator: "\n").map { $0.prefix { $0 != " " } }
        let written = numbers.compactMap { Int($0) }
        #expect(written.count == count - lost && written == written.sorted())
        sink.write(Self.line(count), count: 1)
        sink.close()
        #expect(unsafe read(raw, &piece, piece.count) == Self.line(count).count)
        #expect(losses.lines == lost && losses.errors == 0)
    }

    @Test("the end does not wait for a reader that is gone for longer than it may")
    func ends() throws {
        let (raw, writing) = try Self.pipe()
        defer { close(raw) }
        // As in the program: the reader goes first.
        _ = signal(SIGPIPE, SIG_IGN)
        let sink = LogSink(Descriptor(adopting: writing), bytesMax: 100_000, closeTime: .milliseconds(100))
        for number in 0..<20 { sink.write(Self.line(number), count: 1) }
        // Nobody reads meanwhile: that it returns is all.
        sink.close()
    }
}
