// Heads of requests and responses: no trap, no range outside the bytes, the same verdict however they are cut, and what
// is written for the next hop reads as the same message.

import HTTP1
import LinuxIO
import Primitives

@testable import Gateway

private protocol Head {
    mutating func parse(_ bytes: Span<UInt8>, limits: HeadLimits) -> HeadOutcome
    var fields: HeaderFields { get }
    init()
}

extension RequestHead: Head {}
extension ResponseHead: Head {}

private let unlimited = HeadLimits(requestLineBytes: 0, headerBytes: 0, headerCount: 0)
/// So narrow that inputs of a few hundred bytes meet every bound.
private let narrow = HeadLimits(requestLineBytes: 48, headerBytes: 96, headerCount: 4)

func checkRequestHead(_ input: [UInt8]) throws {
    _ = try verdict(input, RequestHead.self, narrow)
    let (head, outcome) = try verdict(input, RequestHead.self, HeadLimits())
    guard case .complete(let length) = outcome else { return }
    let ranges = [head.methodBytes, head.target, head.path, head.pathAndQuery, head.authority]
    for range in ranges + (head.upgrade.map { [$0] } ?? []) {
        try require(range.lowerBound >= 0 && range.upperBound <= length, "a range outside the head: \(shown(input))")
    }
    _ = PathHazard(path: input.span.extracting(head.path))
    _ = head.maxForwards(in: input.span)

    var output = ByteBuffer()
    appendRequestLine(of: head, from: input.span, to: &output)
    let writesHost = head.form == .absolute || !head.fields.contains(.host)
    if writesHost { output.append("Host: h\r\n") }
    copyFields(of: head, from: input.span, to: &output, dropping: writesHost ? [.host] : [])
    switch head.framing {
    case .none: break
    case .length: output.appendRespelled(length: head.respelledLength)
    case .chunked: output.append("Transfer-Encoding: chunked\r\n")
    }
    output.append("\r\n")
    let written = output.array
    var again = RequestHead()
    let passedOn = "\(shown(input)) is passed on as \(shown(written))"
    try require(
        again.parse(written.span, limits: unlimited) == .complete(length: written.count), "not one head: \(passedOn)")
    try require(input[head.methodBytes] == written[again.methodBytes], "another method: \(passedOn)")
    try require(head.framing == again.framing, "another framing: \(passedOn)")
    let path = Array(input[head.pathAndQuery])
    let expected = path.first == UInt8(ascii: "/") || head.form == .asterisk ? path : [UInt8(ascii: "/")] + path
    try require(Array(written[again.target]) == expected, "another target: \(passedOn)")
    try require(again.keepAlive && again.version == .http11, "hop-by-hop: \(passedOn)")
    try require(again.respelledLength < 0, "a length with zeros: \(passedOn)")
}

func checkResponseHead(_ input: [UInt8]) throws {
    _ = try verdict(input, ResponseHead.self, narrow)
    let (head, outcome) = try verdict(input, ResponseHead.self, HeadLimits())
    guard case .complete(let length) = outcome else { return }
    try require(head.reason.upperBound <= length, "the reason is outside the head: \(shown(input))")
    try require(head.status >= 100 && head.status <= 999, "status \(head.status): \(shown(input))")
    for method in [HTTP1.Method.get, .head] {
        let framing = head.framing(requestMethod: method)
        let delivery: ResponseDelivery =
            switch framing {
            case .none, .length: .asAnnounced
            case .chunked, .untilClose: .chunked
            }
        let rewrite = ResponseRewrite(delivery: delivery, keepAlive: true, clientVersion: .http11)
        var output = ByteBuffer()
        rewrite.write(
            head, input.span, via: Array("us".utf8), date: Array("Date: x\r\n".utf8), to: &output)
        let written = output.array
        var again = ResponseHead()
        let passedOn = "\(shown(input)) is passed on as \(shown(written))"
        try require(
            again.parse(written.span, limits: unlimited) == .complete(length: written.count),
            "not one head: \(passedOn)")
        try require(again.status == head.status, "another status: \(passedOn)")
        let expected: ResponseFraming =
            switch framing {
            case .none, .length: framing
            case .chunked, .untilClose: .chunked
            }
        try require(again.framing(requestMethod: method) == expected, "another framing: \(passedOn)")
    }
}

/// Parses the whole, and prefixes of it: a verdict may come later, and may not differ.
private func verdict<H: Head>(
    _ input: [UInt8], _ type: H.Type, _ limits: HeadLimits
) throws -> (H, HeadOutcome) {
    var head = H()
    let whole = head.parse(input.span, limits: limits)
    var reused = H()
    for length in cuts(of: input.count, seed: stableHash(input.span), everywhereUpTo: 96) {
        let outcome = reused.parse(input.span.extracting(first: length), limits: limits)
        switch (outcome, whole) {
        case (.needMore, .complete(let end)):
            try require(length < end, "\(length) bytes of \(shown(input)) are not enough for a head of \(end)")
        // What is wrong may show later than where it stands.
        case (.needMore, .malformed), (.needMore, .needMore): break
        case (.complete, _), (.malformed, _):
            try require(outcome == whole, "\(length) bytes of \(shown(input)): \(outcome), the whole: \(whole)")
        }
    }
    guard case .complete(let length) = whole else { return (head, whole) }
    try require(length <= input.count, "longer than its bytes: \(shown(input))")
    var end = -1
    for field in head.fields {
        try require(end < 0 || field.line.lowerBound == end, "a gap between lines: \(shown(input))")
        try require(
            field.name.lowerBound == field.line.lowerBound && !field.name.isEmpty
                && field.name.upperBound < field.value.lowerBound
                && field.value.upperBound <= field.line.upperBound - 2,
            "a field outside its line: \(shown(input))")
        end = field.line.upperBound
    }
    try require(end < 0 || end == length - 2, "a gap before the empty line: \(shown(input))")
    return (head, whole)
}
