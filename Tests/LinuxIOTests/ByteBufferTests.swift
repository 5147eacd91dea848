import LinuxIO
import Primitives
import Testing

@Suite("Byte buffers")
struct ByteBufferTests {
    @Test("a buffer that was never used owns no memory, and a released one again none")
    func ownsNoMemoryWhenIdle() {
        var buffer = ByteBuffer()
        #expect(buffer.capacity == 0)
        #expect(buffer.bytes.count == 0)
        buffer.append(UInt8(1))
        #expect(buffer.capacity > 0)
        buffer.release()
        #expect(buffer.capacity == 0)
        #expect(buffer.count == 0)
        buffer.append("again")
        #expect(buffer.text == "again")
    }

    @Test("nothing appended to a buffer that was never used changes nothing")
    func appendsNothing() {
        var buffer = ByteBuffer()
        let none: [UInt8] = []
        let noText: StaticString = ""
        buffer.append(none)
        buffer.append(none.span)
        buffer.append(noText)
        buffer.append(String())
        buffer.append(String(decoding: none, as: UTF8.self))
        buffer.consume(0)
        buffer.truncate(to: 0)
        buffer.clear()
        #expect(buffer.count == 0)
        #expect(buffer.capacity == 0)
        #expect(buffer.text == "")
    }

    @Test("clearing and consuming keep the memory and give its whole room back")
    func keepsMemory() {
        var buffer = ByteBuffer(capacity: 1_000)
        let capacity = buffer.capacity
        #expect(capacity >= 1_000)
        buffer.append([UInt8](repeating: 7, count: 600))
        #expect(buffer.writable == capacity - 600)
        buffer.consume(600)
        #expect(buffer.writable == capacity)
        buffer.append([UInt8](repeating: 7, count: 600))
        buffer.clear()
        #expect(buffer.writable == capacity)
        #expect(buffer.capacity == capacity)
    }

    @Test("room that consuming has freed is used again before the buffer grows")
    func reusesConsumedRoom() {
        var buffer = ByteBuffer(capacity: 256)
        let capacity = buffer.capacity
        for round in 0..<1_000 {
            buffer.append([UInt8](repeating: UInt8(truncatingIfNeeded: round), count: 200))
            buffer.consume(round == 0 ? 150 : 200)
        }
        #expect(buffer.capacity == capacity)
        #expect(buffer.array == [UInt8](repeating: UInt8(truncatingIfNeeded: 999), count: 50))
    }

    @Test(
        "decimal digits are those of Swift",
        arguments: [
            0, 1, 9, 10, 11, 99, 100, 999, 1_000, 65_535, 1_000_000, .max - 1, .max, -1, -9, -10, .min + 1, .min,
        ])
    func writesDecimal(value: Int) {
        var buffer = ByteBuffer()
        buffer.append(decimal: value)
        #expect(buffer.text == String(value))
    }

    @Test("every power of ten has its digits, and so have its neighbours")
    func writesPowersOfTen() {
        var power = 1
        for _ in 0...18 {
            for value in [power - 1, power, power + 1, -power] {
                var buffer = ByteBuffer()
                buffer.append(decimal: value)
                #expect(buffer.text == String(value))
            }
            power &*= 10
        }
    }

    @Test(
        "hexadecimal digits are lower case and padded only on request",
        arguments: [
            (0, 1, "0"), (0, 0, "0"), (0, -3, "0"), (0, 4, "0000"), (9, 1, "9"), (10, 1, "a"), (15, 2, "0f"),
            (16, 1, "10"),
            (255, 1, "ff"), (256, 2, "100"), (0xdead_beef, 8, "deadbeef"),
            (0x0123_4567_89ab_cdef, 16, "0123456789abcdef"),
            (1, 16, "0000000000000001"), (.max, 1, "ffffffffffffffff"), (.max, 18, "00ffffffffffffffff"),
            (1 << 60, 1, "1000000000000000"), (1 << 63, 17, "08000000000000000"),
        ] as [(UInt64, Int, String)])
    func writesHexadecimal(value: UInt64, width: Int, text: String) {
        var buffer = ByteBuffer()
        buffer.append(hexadecimal: value, width: width)
        #expect(buffer.text == text)
    }

    @Test(
        "an address is written as it describes itself",
        arguments: ["0.0.0.0", "255.255.255.255", "192.0.2.10", "::", "2001:db8::1", "::ffff:192.0.2.1"])
    func writesAddresses(text: String) throws {
        var buffer = ByteBuffer()
        buffer.append(try #require(IPAddress(text)))
        #expect(buffer.text == text)
    }

    @Test("bytes that are no UTF-8 show as replacement characters and stay as they are")
    func showsInvalidText() {
        var buffer = ByteBuffer()
        buffer.append([0x61, 0xff, 0x62])
        #expect(buffer.text == "a\u{fffd}b")
        #expect(buffer.array == [0x61, 0xff, 0x62])
    }
}
