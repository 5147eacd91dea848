import LinuxIO
import TestSupport
import Testing

@testable import Compression

@Suite("gzip")
struct GzipTests {
    private static func bytes(_ count: Int, _ byte: (Int) -> Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: byte($0)) }
    }

    @Test("what goes in comes out, in one piece or many, and after a reset too", arguments: [1, 4, 9])
    func roundTrip(level: Int) throws {
        let stream = try #require(GzipStream(level: level))
        for input in [
            [], Self.bytes(1) { $0 }, Self.bytes(200_000) { $0 / 7 }, Self.bytes(100_000) { $0 &* $0 &* 31 >> 3 },
        ] {
            for step in [1_000, 70_000, 1 << 20] {
                var output = ByteBuffer()
                var start = 0
                while start < input.count {
                    let piece = Array(input[start..<min(input.count, start + step)])
                    #expect(stream.write(piece.span, .none, to: &output))
                    start += step
                }
                #expect(stream.write(Span(), .finish, to: &output))
                let reader = Gunzip()
                #expect(reader.read(output.array) == input)
                #expect(reader.hasEnded)
                stream.reset()
            }
        }
    }

    @Test("after a flush the other side can read all that was written")
    func flush() throws {
        let stream = try #require(GzipStream(level: 4))
        let reader = Gunzip()
        for text in ["data: one\n\n", "data: two\n\n", "", "x"] {
            var output = ByteBuffer()
            let input = Array(text.utf8)
            #expect(stream.write(input.span, .none, to: &output))
            #expect(stream.owesFlush == !text.isEmpty)
            #expect(stream.write(Span(), .sync, to: &output))
            #expect(!stream.owesFlush)
            #expect(reader.read(output.array) == input)
        }
        var end = ByteBuffer()
        #expect(stream.write(Span(), .finish, to: &end))
        #expect(reader.read(end.array) == [])
        #expect(reader.hasEnded)
    }
}
