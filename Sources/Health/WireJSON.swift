// How everything that the nodes tell each other is written and read: JSON on one line, keys in order, so that a person
// with redis-cli can read it. Whoever can write to Redis can write here: sizes are bounded, and what has the wrong shape
// is refused with a reason. Fields that are not known are skipped, so that a later release may add some.

import FoundationEssentials
import Membership

enum WireJSON {
    /// Longest JSON that is read of one subject: every field at its bound, with room for fields to come.
    static let bytesMax = 4096

    static func text(_ value: some Encodable) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else { return "{}" }
        return String(decoding: data, as: UTF8.self)
    }

    static func read<Value: Decodable>(
        _ bytes: [UInt8], bytesMax: Int = bytesMax
    ) throws(HealthFormatError) -> Value {
        if bytes.count > bytesMax { throw .tooLong(bytes: bytes.count) }
        guard let value = try? JSONDecoder().decode(Value.self, from: Data(bytes)) else { throw .malformed }
        return value
    }

    static func node(_ text: some StringProtocol) throws(HealthFormatError) -> NodeID {
        do throws(NodeIDError) { return try NodeID(text) } catch { throw .badNode }
    }

    static func boot(_ text: String) throws(HealthFormatError) -> BootID {
        guard let boot = BootID(hex: text) else { throw .badBoot }
        return boot
    }
}
