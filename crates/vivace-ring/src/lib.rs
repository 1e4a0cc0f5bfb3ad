//! Who owns a token: a pure ring over a membership snapshot, chitchat at the rim
