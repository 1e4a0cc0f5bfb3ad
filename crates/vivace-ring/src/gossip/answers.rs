//! What an answer changes.

use std::net::SocketAddr;

use super::wire::{Answer, Datagram, Item, Told, Wanted};
use super::{CAUSED_MAX, Gossip, Millis, Outgoing, PEERS_MAX, Peer, Question, Rumor, Run, Said, Word};

impl Gossip {
    pub(super) fn hear(
        &mut self,
        datagram: &Datagram,
        answer: &Answer,
        question: Question,
        from: SocketAddr,
        now: Millis,
        out: &mut Outgoing,
    ) {
        // Whatever the answer says was so when it was asked for; it may have become false since.
        let then = question.at;
        self.hear_word(datagram.run, datagram.addr, &answer.word, before(then, datagram.up_ms), then, now);
        if let (Wanted::About(run), Some(told)) = (question.wanted, &answer.told)
            && told.item.run == run
        {
            self.hear_told(told, then, now);
        }
        let Wanted::Page(first) = question.wanted else { return };
        let mut asks = Vec::new();
        for item in &answer.items {
            if item.run == self.run {
                // We know better.
                let is_wrong = item.digest != self.word.digest() || Millis::from(item.heard_ms) >= 2 * self.interval();
                asks.extend(is_wrong.then_some(from));
            } else {
                asks.extend(self.hear_of(item, then, from, now));
            }
        }
        for addr in asks.into_iter().take(CAUSED_MAX) {
            self.ask_if_idle(addr, Wanted::Word, now, out);
        }
        if let Some(next) = answer.next.filter(|next| *next > first) {
            self.ask_if_idle(from, Wanted::Page(next), now, out);
        }
    }

    /// A run speaks for itself.
    fn hear_word(&mut self, run: Run, addr: SocketAddr, word: &Word, started: Millis, then: Millis, now: Millis) {
        self.forgotten.remove(&run);
        for (other, peer) in &mut self.peers {
            // Two processes cannot listen on the same address at the same time.
            if peer.addr == addr && *other != run && peer.heard <= then {
                self.news |= peer.replaced.is_none();
                peer.replaced = Some(then);
            }
        }
        if !self.peers.contains_key(&run) && !self.make_room(true) {
            return;
        }
        let was_alive = self.peers.get(&run).is_some_and(|peer| self.is_alive(peer, now));
        let pause = self.interval();
        let peer = self.peers.entry(run).or_insert_with(|| Peer::new(addr, then, now));
        let known = peer.said.as_ref().filter(|said| said.first_hand);
        if known.is_some_and(|said| said.at > then) {
            // An answer to a later question was quicker.
            return;
        }
        let is_new = peer.said.as_ref().is_none_or(|said| said.word != *word) || peer.addr != addr;
        let since = known.filter(|said| word.claims_no_more_than(&said.word)).map_or(then, |said| said.since);
        peer.said = Some(Said { word: word.clone(), at: then, since, first_hand: true, started });
        peer.rumor = peer.rumor.filter(|rumor| rumor.at > then && (rumor.digest != word.digest() || rumor.addr != addr));
        (peer.addr, peer.heard, peer.vouched) = (addr, peer.heard.max(then), now);
        (peer.pause, peer.ask_at) = (pause, now + pause);
        self.news |= is_new || !was_alive;
        if is_new {
            self.forget(&word.content().forgotten, now);
        }
    }

    /// Somebody has spoken with a run. Returns whom to ask about that.
    fn hear_of(&mut self, item: &Item, then: Millis, from: SocketAddr, now: Millis) -> Option<SocketAddr> {
        let (heard, at) = (before(then, item.heard_ms.into()), before(then, item.word_ms.into()));
        // A run at our own address is one that was here before us. Who has lived on after it was forgotten must be asked.
        let is_over = self.forgotten.get(&item.run).is_some_and(|since| heard <= *since);
        if is_over || item.addr == self.settings.addr {
            return None;
        }
        if !self.peers.contains_key(&item.run) && !self.make_room(false) {
            return None;
        }
        let interval = self.interval();
        let was_alive = self.peers.get(&item.run).is_some_and(|peer| self.is_alive(peer, now));
        let peer = self.peers.entry(item.run).or_insert_with(|| Peer::new(item.addr, heard, now));
        peer.heard = peer.heard.max(heard);
        let is_back = !was_alive && heard == peer.heard && now - heard < 2 * interval;
        if is_back {
            self.news = true;
            (peer.pause, peer.ask_at) = (0, peer.ask_at.min(now));
        }
        let rumor = |since| Rumor { digest: item.digest, addr: item.addr, at, since, via: from, lasting: item.lasting };
        match &mut peer.said {
            None => {
                // Whoever tells last may be right about where it is.
                (peer.vouched, peer.addr) = (now, item.addr);
                if peer.rumor.is_none_or(|known| item.lasting >= known.lasting) {
                    peer.rumor = Some(rumor(peer.rumor.map_or(now, |known| known.since)));
                }
            }
            Some(said) if said.word.digest() == item.digest && peer.addr == item.addr => {
                if item.lasting && !said.first_hand {
                    (said.at, peer.vouched) = (said.at.max(at), now);
                }
                peer.rumor = peer.rumor.filter(|known| known.at > at);
            }
            Some(said) if at > said.at => {
                if peer.rumor.is_none_or(|known| at > known.at) {
                    let since = peer.rumor.map_or(now, |known| known.since);
                    if peer.rumor.is_none() {
                        peer.ask_at = peer.ask_at.min(now);
                    }
                    peer.rumor = Some(rumor(since));
                }
            }
            Some(_) => {}
        }
        let is_due = peer.rumor.is_some() && peer.ask_at <= now;
        if is_due {
            // The pause grows only where the next interval asks again.
            peer.ask_at = now + interval;
        }
        is_due.then_some(item.addr)
    }

    /// Takes a word at second hand, where the run itself has not answered.
    fn hear_told(&mut self, told: &Told, then: Millis, now: Millis) {
        let interval = self.interval();
        let Some(peer) = self.peers.get_mut(&told.item.run) else { return };
        let Some(rumor) = peer.rumor.filter(|rumor| rumor.digest == told.item.digest && rumor.is_unanswered(interval, now)) else {
            return;
        };
        // What does not last must not get a new term by being told.
        let is_better = told.item.lasting && peer.said.as_ref().is_none_or(|said| rumor.at > said.at);
        if !is_better || self.forgotten.contains_key(&told.item.run) {
            return;
        }
        peer.addr = told.item.addr;
        peer.heard = peer.heard.max(before(then, told.item.heard_ms.into()));
        let at = before(then, told.item.word_ms.into());
        peer.said = Some(Said { word: told.word.clone(), at, since: now, first_hand: false, started: before(then, told.up_ms) });
        (peer.rumor, peer.vouched) = (None, now);
        self.news = true;
    }

    /// Whether one more run can be known. Tales make room for words, and so do the dead of whom little is known.
    fn make_room(&mut self, speaks: bool) -> bool {
        if self.peers.len() < PEERS_MAX {
            return true;
        }
        let is_tale = |peer: &Peer| peer.said.as_ref().is_none_or(|said| !said.first_hand);
        let is_short = |peer: &Peer| peer.said.as_ref().is_none_or(|said| !said.is_lasting());
        let candidates = self.peers.iter().filter(|(_, peer)| is_tale(peer) || speaks && is_short(peer));
        let Some(run) = candidates.min_by_key(|(_, peer)| (!is_tale(peer), peer.heard)).map(|(run, _)| *run) else { return false };
        // Of two tales the older one stays: made-up ones never stop.
        speaks && self.peers.remove(&run).is_some()
    }
}

fn before(then: Millis, ms: u64) -> Millis {
    then.saturating_sub(Millis::try_from(ms).unwrap_or(Millis::MAX / 4))
}
