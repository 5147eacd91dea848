/// How far a TRACE or OPTIONS request may go (RFC 9110 §7.6.2): the intermediary that reads 0 answers it, and others
/// pass on one less. It is how a client finds the hop at which a chain of gateways loops or breaks.
package enum MaxForwards: Equatable, Sendable {
    case absent
    /// As received, or the greatest number that is passed on where it is greater.
    case hops(Int)
    /// No number, or more than one field: the next hop could read another number and answer where we do not expect it.
    case malformed(at: Int)
}

extension RequestHead {
    /// What Max-Forwards says. It binds TRACE and OPTIONS alone; in other requests it is a field like any other.
    /// `bytes` are those that were parsed.
    package func maxForwards(in bytes: Span<UInt8>) -> MaxForwards {
        guard let field = fields.first(.maxForwards) else { return .absent }
        let value = field.value
        guard !value.isEmpty, !fields.repeated.contains(.maxForwards) else {
            return .malformed(at: value.lowerBound)
        }
        var hops = 0
        for i in value {
            guard isDigit(bytes[i]) else { return .malformed(at: value.lowerBound) }
            // However many digits there are, this cannot overflow.
            hops = min(hops * 10 + Int(bytes[i] &- 0x30), CodecLimits.hopsMax)
        }
        return .hops(hops)
    }
}
