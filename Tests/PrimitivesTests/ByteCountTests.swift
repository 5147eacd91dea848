import Primitives
import Testing

@Suite("Numbers of bytes")
struct ByteCountTests {
    @Test(
        "the description uses the largest unit that divides the number",
        arguments: [
            (0, "0B"), (1, "1B"), (1_023, "1023B"), (1_024, "1KiB"), (1_025, "1025B"), (1_536, "1536B"),
            (65_536, "64KiB"), (1 << 20, "1MiB"), (3 << 19, "1536KiB"), (1 << 30, "1GiB"), (5 << 28, "1280MiB"),
            (1 << 40, "1024GiB"), (.max, "9223372036854775807B"),
        ])
    func describes(bytes: Int, text: String) {
        #expect(ByteCount(bytes: bytes).description == text)
    }

    @Test("the units are powers of 1024")
    func scales() {
        #expect(ByteCount.bytes(7).bytes == 7)
        #expect(ByteCount.kibibytes(8).bytes == 8_192)
        #expect(ByteCount.mebibytes(3).bytes == 3_145_728)
        #expect(ByteCount.kibibytes(1_024) == .mebibytes(1))
        #expect(ByteCount.kibibytes(1) < .mebibytes(1))
    }

    @Test("a number too large for its unit saturates instead of losing its upper bits")
    func saturates() {
        #expect(ByteCount.kibibytes(.max).bytes == .max)
        #expect(ByteCount.mebibytes(.max).bytes == .max)
        #expect(ByteCount.kibibytes(1 << 54).bytes == .max)
        #expect(ByteCount.mebibytes(1 << 44).bytes == .max)
        #expect(ByteCount.kibibytes(.max >> 10).bytes == .max - 1_023)
    }
}
