// The transaction of one entry, formatted once by hiredis for each length of key, and filled in from then on. Between
// two decisions of different clients only four texts differ, and they have fixed widths: the key, the entry's name, the
// horizon and the score. Formatting eight commands for each decision cost more than parsing the request.

import Hiredis
import Identity
import LinuxIO
import Primitives

struct WindowTemplate: Sendable {
    private let bytes: [UInt8]
    private let keyLength: Int
    private let nameLength: Int
    private let keys: [Int]
    private let names: [Int]
    private let horizon: Int
    private let score: Int

    /// Times of 16 digits: from 2001 to 2286.
    private static let timeDigits = 16

    /// Formats a transaction and finds what is to be filled in; `nil` where it is not of the shape that can be.
    init?(_ transaction: WindowTransaction, _ key: WindowKey, _ names: MemberNames) {
        guard transaction.count == 1, transaction.largest == 1, Self.hasUsualTimes(transaction, key) else { return nil }
        var writer = CommandWriter()
        transaction.write(key, names, to: &writer)
        bytes = writer.output.array
        func text(_ body: (inout ByteBuffer) -> Void) -> [UInt8] {
            var buffer = ByteBuffer()
            body(&buffer)
            return buffer.array
        }
        let keyText = text { key.write(transaction.subject, to: &$0) }
        let nameText = text { names.write(transaction.first, to: &$0) }
        let horizonText = Array("\(Self.horizon(transaction, key))".utf8)
        let scoreText = Array("\(transaction.score.microseconds)".utf8)
        keyLength = keyText.count
        nameLength = nameText.count
        keys = Self.places(of: keyText, in: bytes, after: "\n")
        self.names = Self.places(of: nameText, in: bytes, after: "\n")
        let horizons = Self.places(of: horizonText, in: bytes, after: "(")
        let scores = Self.places(of: scoreText, in: bytes, after: "\n")
        guard keys.count == (key.tellsRemaining ? 7 : 6), self.names.count == 2, horizons.count == 1, scores.count == 1
        else { return nil }
        horizon = horizons[0]
        score = scores[0]
    }

    private static func hasUsualTimes(_ transaction: WindowTransaction, _ key: WindowKey) -> Bool {
        let usual: ClosedRange<Int64> = 1_000_000_000_000_000...9_999_999_999_999_999
        func isUsual(_ microseconds: Int64) -> Bool { usual.contains(microseconds) }
        return isUsual(transaction.score.microseconds) && isUsual(horizon(transaction, key))
    }

    private static func horizon(_ transaction: WindowTransaction, _ key: WindowKey) -> Int64 {
        (transaction.lower - key.policy.window).microseconds
    }

    /// Where `text` stands as a whole argument, behind `mark`.
    private static func places(of text: [UInt8], in bytes: [UInt8], after mark: Unicode.Scalar) -> [Int] {
        guard bytes.count > text.count + 2 else { return [] }
        return (1...(bytes.count - text.count - 2)).filter { place in
            bytes[place - 1] == UInt8(ascii: mark) && bytes[place + text.count] == UInt8(ascii: "\r")
                && bytes[place..<(place + text.count)].elementsEqual(text)
        }
    }

    /// Writes a transaction, if its key has this template's length and its times have their usual width.
    func write(
        _ transaction: WindowTransaction, _ key: WindowKey, _ names: MemberNames, scratch: inout ByteBuffer,
        to output: inout ByteBuffer
    ) -> Bool {
        guard transaction.count == 1, Self.hasUsualTimes(transaction, key) else { return false }
        scratch.clear()
        key.write(transaction.subject, to: &scratch)
        guard scratch.count == keyLength else { return false }
        let start = output.count
        output.append(bytes.span)
        for place in keys { fill(&output, start + place, scratch) }
        scratch.clear()
        names.write(transaction.first, to: &scratch)
        // Sequence numbers beyond 48 bits have more digits.
        guard scratch.count == nameLength else {
            output.truncate(to: start)
            return false
        }
        for place in self.names { fill(&output, start + place, scratch) }
        scratch.clear()
        scratch.append(decimal: Int(Self.horizon(transaction, key)))
        fill(&output, start + horizon, scratch)
        scratch.clear()
        scratch.append(decimal: Int(transaction.score.microseconds))
        fill(&output, start + score, scratch)
        return true
    }

    private func fill(_ output: inout ByteBuffer, _ place: Int, _ text: borrowing ByteBuffer) {
        output.overwrite(at: place, with: text.bytes)
    }
}

/// The templates of a policy, by the length of the subject's text.
final class WindowTemplates {
    private var templates: [WindowTemplate?] = []
    private var scratch = ByteBuffer(capacity: 128)

    /// Writes a transaction, by a template where it has one entry.
    func write(
        _ transaction: WindowTransaction, _ key: WindowKey, _ names: MemberNames, to writer: inout CommandWriter
    ) {
        guard transaction.count == 1 else {
            transaction.write(key, names, to: &writer)
            return
        }
        scratch.clear()
        key.write(transaction.subject, to: &scratch)
        let length = scratch.count
        while templates.count <= length { templates.append(nil) }
        if templates[length] == nil { templates[length] = WindowTemplate(transaction, key, names) }
        let isWritten =
            templates[length]?.write(transaction, key, names, scratch: &scratch, to: &writer.output) ?? false
        if !isWritten { transaction.write(key, names, to: &writer) }
    }
}
