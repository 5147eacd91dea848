import Foundation
import HTTP1
import LinuxIO
import Primitives
import Testing

/// The bytes of a row: every scalar is one byte, so that a row can hold any byte.
func bytes(_ text: String) -> [UInt8] {
    text.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) }
}

/// A row in which `‸` marks the offset at which a rule is broken.
struct Marked: CustomStringConvertible, Sendable {
    let bytes: [UInt8]
    let offset: Int
    let description: String

    init(_ text: String) {
        let scalars = Array(text.unicodeScalars)
        offset = scalars.firstIndex(of: "‸") ?? -1
        bytes = scalars.filter { $0 != "‸" }.map { UInt8(truncatingIfNeeded: $0.value) }
        description = text.debugDescription
    }
}

func text(_ bytes: [UInt8], _ range: Range<Int>?) -> String? {
    range.map { String(decoding: bytes[$0], as: UTF8.self) }
}

/// What both heads have in common.
protocol Head {
    mutating func parse(_ bytes: Span<UInt8>, limits: HeadLimits) -> HeadOutcome
    var fields: HeaderFields { get }
    init()
}

extension RequestHead: Head {}
extension ResponseHead: Head {}

func parse<H: Head>(_ bytes: [UInt8], as type: H.Type, limits: HeadLimits = HeadLimits()) -> (H, HeadOutcome) {
    var head = H()
    let outcome = head.parse(bytes.span, limits: limits)
    return (head, outcome)
}

/// Gives the parser every prefix of `bytes`, one byte longer each time, and holds each verdict against the whole's:
/// it may come later, and may not differ.
func expectSameHoweverCut<H: Head>(_ bytes: [UInt8], as type: H.Type, limits: HeadLimits = HeadLimits()) {
    let whole = parse(bytes, as: H.self, limits: limits).1
    var reused = H()
    var decided = false
    for length in 0...bytes.count {
        let outcome = reused.parse(bytes.span.extracting(first: length), limits: limits)
        switch outcome {
        case .needMore:
            #expect(!decided, "prefix of \(length) forgets a verdict of \(debug(bytes))")
            if case .complete(let end) = whole { #expect(length < end) }
        case .complete(let end):
            #expect(outcome == whole && end <= length, "prefix of \(length) of \(debug(bytes))")
            decided = true
        case .malformed(let violation):
            #expect(outcome == whole, "prefix of \(length) of \(debug(bytes))")
            #expect(violation.offset >= 0 && violation.offset <= length)
            decided = true
        }
    }
    #expect(decided == (whole != .needMore))
}

func debug(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self).debugDescription }

// The macros of Swift Testing cannot take a span apart, so these take arrays.
extension HeaderFields {
    func position(of name: String, in input: [UInt8], from start: Int = 0) -> Int? {
        let name = bytes(name)
        return first(named: name.span, in: input.span, from: start)
    }
}

extension HeadProgress {
    mutating func hasNews(inFirst length: Int, of input: [UInt8]) -> Bool {
        hasNews(in: input.span.extracting(first: length))
    }
}

/// The seed of this run's random tests: printed, and taken from `SLUICE_SEED` where that is set.
let seed: UInt64 = {
    let given = ProcessInfo.processInfo.environment["SLUICE_SEED"].flatMap { UInt64($0) }
    let seed = given ?? UInt64.random(in: 0...UInt64.max)
    print("HTTP1Tests: SLUICE_SEED=\(seed)")
    return seed
}()
