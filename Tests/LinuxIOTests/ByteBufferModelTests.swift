// A buffer and an array of bytes get the same random operations, and must hold the same bytes after each of them.

import LinuxIO
import Primitives
import Testing

/// What a byte buffer can be asked, with arguments that are valid for what it holds.
private enum Operation: CaseIterable {
    case appendByte, appendSpan, appendArray, appendStatic, appendText, appendDecimal, appendHexadecimal, appendAddress
    case consume, consumeAll, truncate, overwrite, reserve, clear, release
}

@Suite("Byte buffers beside an array of bytes")
struct ByteBufferModelTests {
    @Test("a buffer holds what an array would after any operations", arguments: seeds)
    func behavesLikeAnArray(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        var buffer = ByteBuffer()
        var model: [UInt8] = []
        var history: [Operation] = []
        for step in 0..<10_000 {
            let operation = try #require(Self.draw(using: &random))
            history.append(operation)
            Self.apply(operation, to: &buffer, and: &model, using: &random)
            let held = buffer.array
            let isSame =
                held == model && buffer.count == model.count && buffer.isEmpty == model.isEmpty
                && buffer.bytes.count == model.count && buffer.writable >= 0 && buffer.capacity >= model.count
            try #require(isSame, "step \(step) after \(history.suffix(6)), seed \(seed)")
        }
    }

    /// Clearing and releasing are rare, so that the buffer grows past its first block and moves its bytes in between.
    private static func draw(using random: inout SplitMix64) -> Operation? {
        let operation = Operation.allCases.randomElement(using: &random)
        switch operation {
        case .clear, .release, .consumeAll: return random.next() % 8 == 0 ? operation : .appendSpan
        case .appendByte, .appendSpan, .appendArray, .appendStatic, .appendText, .appendDecimal, .appendHexadecimal,
            .appendAddress, .consume, .truncate, .overwrite, .reserve, .none:
            return operation
        }
    }

    private static func apply(
        _ operation: Operation, to buffer: inout ByteBuffer, and model: inout [UInt8], using random: inout SplitMix64
    ) {
        switch operation {
        case .appendByte:
            let byte = UInt8(truncatingIfNeeded: random.next())
            buffer.append(byte)
            model.append(byte)
        case .appendSpan:
            let bytes = someBytes(using: &random)
            buffer.append(bytes.span)
            model += bytes
        case .appendArray:
            let bytes = someBytes(using: &random)
            buffer.append(bytes)
            model += bytes
        case .appendStatic:
            let text: StaticString = "Content-Length: "
            buffer.append(text)
            model += Array("Content-Length: ".utf8)
        case .appendText:
            // Longer than 15 bytes, a string is stored in another way.
            let text = String(repeating: "\u{e9}x", count: Int(random.next() % 12))
            buffer.append(text)
            model += Array(text.utf8)
        case .appendDecimal:
            let value = Int(truncatingIfNeeded: random.next()) >> Int.random(in: 0...63, using: &random)
            buffer.append(decimal: value)
            model += Array(String(value).utf8)
        case .appendHexadecimal:
            let value = random.next() >> UInt64.random(in: 0...63, using: &random)
            let width = Int.random(in: 0...20, using: &random)
            let digits = String(value, radix: 16)
            buffer.append(hexadecimal: value, width: width)
            model += Array((String(repeating: "0", count: max(0, width - digits.count)) + digits).utf8)
        case .appendAddress:
            let address = IPAddress(v4: UInt32(truncatingIfNeeded: random.next()))
            buffer.append(address)
            model += Array(address.description.utf8)
        case .consume:
            let n = Int.random(in: 0...model.count, using: &random)
            buffer.consume(n)
            model.removeFirst(n)
        case .consumeAll:
            buffer.consume(buffer.count)
            model = []
        case .truncate:
            let n = Int.random(in: model.count / 2...model.count, using: &random)
            buffer.truncate(to: n)
            model.removeLast(model.count - n)
        case .overwrite:
            guard !model.isEmpty else { return }
            let place = Int.random(in: model.indices, using: &random)
            let byte = UInt8(truncatingIfNeeded: random.next())
            buffer.overwrite(at: place, with: byte)
            model[place] = byte
        case .reserve:
            let room = Int.random(in: 0...2_000, using: &random)
            buffer.reserve(room)
            #expect(buffer.writable >= room)
        case .clear:
            buffer.clear()
            model = []
        case .release:
            buffer.release()
            model = []
        }
    }

    /// Mostly few bytes, none of them at times, and now and then more than the buffer's block.
    private static func someBytes(using random: inout SplitMix64) -> [UInt8] {
        let bound = random.next() % 16 == 0 ? 3_000 : 40
        let count = Int.random(in: 0...bound, using: &random)
        return (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    }
}
