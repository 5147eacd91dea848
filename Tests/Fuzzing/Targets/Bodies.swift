// Chunked bodies and their trailers: the same payload and the same verdict however they are cut, and what is written
// for the next hop reads as the same body.

import HTTP1
import LinuxIO
import Primitives

private struct Decoded: Equatable {
    enum End: Equatable {
        case needsMore
        case ended(at: Int)
        case malformed(Violation)
    }

    var payload: [UInt8] = []
    var trailers: [UInt8] = []
    var end = End.needsMore
}

private func decode(_ input: [UInt8], cut places: [Int], bytesMax: Int64 = 0) throws -> Decoded {
    var decoder = BodyDecoder(RequestFraming.chunked, limits: HeadLimits(), bytesMax: bytesMax)
    var decoded = Decoded()
    for (start, end) in zip(places, places.dropFirst()) {
        let piece = input.span.extracting(start..<end)
        var offset = 0
        events: while true {
            let event = decoder.next(piece, at: offset)
            let trailer = decoder.trailer
            try require(trailer.upperBound <= piece.count, "trailers outside: \(shown(input))")
            if !trailer.isEmpty {
                decoded.trailers += input[(start + trailer.lowerBound)..<(start + trailer.upperBound)]
            }
            switch event {
            case .data(let range):
                try require(
                    range.lowerBound >= offset && !range.isEmpty && range.upperBound <= piece.count,
                    "payload outside: \(shown(input))")
                decoded.payload += input[(start + range.lowerBound)..<(start + range.upperBound)]
                offset = range.upperBound
            case .needMore(let consumed):
                try require(consumed == piece.count, "bytes are left over: \(shown(input))")
                break events
            case .end(let consumed):
                try require(consumed <= piece.count && decoder.isComplete, "an end outside: \(shown(input))")
                decoded.end = .ended(at: start + consumed)
                return decoded
            case .malformed(let violation):
                decoded.end = .malformed(Violation(violation.rule, at: start + violation.offset))
                return decoded
            }
        }
    }
    return decoded
}

func checkChunked(_ input: [UInt8]) throws {
    let ends = [0, input.count]
    let places = cuts(of: input.count, seed: stableHash(input.span), everywhereUpTo: 64)
    let whole = try decode(input, cut: ends)
    let pieces = try decode(input, cut: places)
    try require(whole.payload == pieces.payload && whole.end == pieces.end, "cut otherwise: \(shown(input))")
    try checkBound(input, places, whole)

    guard case .ended = whole.end else { return }
    try require(whole.trailers == pieces.trailers, "other trailers where cut otherwise: \(shown(input))")
    var output = ByteBuffer()
    let middle = whole.payload.count / 2
    output.appendChunk(whole.payload.span.extracting(0..<middle))
    output.appendChunk(whole.payload.span.extracting(middle..<whole.payload.count))
    output.appendLastChunk(trailers: whole.trailers.span)
    let written = output.array
    let again = try decode(written, cut: [0, written.count])
    let passedOn = "\(shown(input)) is passed on as \(shown(written))"
    try require(again.end == .ended(at: written.count) && again.payload == whole.payload, "another body: \(passedOn)")
    var kept = ByteBuffer()
    copyTrailers(again.trailers.span, to: &kept)
    try require(kept.array == again.trailers, "trailers that may not pass: \(passedOn)")
}

/// A bound holds whatever the cuts, and changes nothing for bodies below it.
private func checkBound(_ input: [UInt8], _ places: [Int], _ unbounded: Decoded) throws {
    let bytesMax = 24
    for places in [[0, input.count], places] {
        let decoded = try decode(input, cut: places, bytesMax: Int64(bytesMax))
        try require(decoded.payload.count <= bytesMax, "more than the bound: \(shown(input))")
        if unbounded.payload.count <= bytesMax {
            try require(decoded == unbounded || decoded.end == unbounded.end, "a bound changes it: \(shown(input))")
        } else if case .malformed(let violation) = decoded.end, violation.rule == .bodyTooLarge {
            continue
        } else {
            throw Finding("the bound goes unnoticed: \(shown(input))")
        }
    }
}
