//! What is done to networks: cuts between hosts in one direction, weather on the links that carry requests.

use std::time::Duration;

use crate::nemesis::Nemesis;
use crate::plan::{Fault, Step};
use crate::support::dice::Dice;
use crate::support::faulty_link::{FaultyLink, Weather};
use crate::world::{World, member};

impl Nemesis {
    /// Links fall silent one way, or have weather.
    pub fn change_weather(&mut self, step: &Step, world: &mut World<'_>, dice: &mut Dice) {
        self.await_free(&["links"], world);
        let ms = Duration::from_millis;
        let one = |links: &[FaultyLink], dice: &mut Dice, weather: Weather| {
            // One of them, or all.
            let only = dice.below(links.len() + 1);
            for (number, link) in links.iter().enumerate() {
                if only == links.len() || only == number {
                    link.set(weather.clone());
                }
            }
        };
        let there = Weather { cut_there: true, ..Weather::default() };
        let back = Weather { cut_back: true, ..Weather::default() };
        match step.fault {
            Fault::StampCutThere => one(&world.to_guards, dice, there),
            Fault::StampCutBack => one(&world.to_guards, dice, back),
            Fault::TargetCutThere => one(&world.to_target, dice, there),
            Fault::TargetCutBack => one(&world.to_target, dice, back),
            _ => {
                let delay = dice.span(ms(0), ms(400));
                let stormy = Weather {
                    delay,
                    breaks: *dice.one(&[0, 5, 40]),
                    repeats: *dice.one(&[0, 50, 300]),
                    repeats_after: dice.span(ms(10), ms(6000)),
                    ..Weather::default()
                };
                world.to_stamps.iter().chain(&world.to_guards).for_each(|link| link.set(stormy.clone()));
                // What is on its way to the target is over soon after its connection, and comes once.
                let short = Weather { delay: delay.min(ms(150)), repeats: 0, ..stormy };
                world.to_target.iter().for_each(|link| link.set(short.clone()));
            }
        }
        self.hold(&["links"], step, |world| world.clear());
    }

    /// Hosts do not hear each other, or one does not hear the other.
    pub fn partition(&mut self, step: &Step, world: &mut World<'_>, dice: &mut Dice) {
        let members: Vec<String> = (0..world.members.len()).map(member).collect();
        let (cuts, claims): (Vec<(String, String)>, Vec<String>) = match step.fault {
            Fault::GuardUnheard | Fault::GuardDeaf => {
                let at = self.guard(world, dice);
                let id = world.guards[at].id.clone();
                (one_way(&id, &members, step.fault == Fault::GuardDeaf), vec![id])
            }
            Fault::StampUnheard | Fault::StampDeaf => {
                let at = self.stamp(world, dice);
                let id = world.stamps[at].id.clone();
                (one_way(&id, &members, step.fault == Fault::StampDeaf), vec![id])
            }
            fault => {
                let all: Vec<&str> = members.iter().map(String::as_str).collect();
                self.await_free(&all, world);
                let first = dice.below(members.len());
                let lagging = members[first].clone();
                let others: Vec<String> = members.iter().filter(|member| **member != lagging).cloned().collect();
                let second = others[dice.below(others.len())].clone();
                let mut claims = members.clone();
                let cuts = match fault {
                    // Neither hears the other; the third hears both.
                    Fault::MembersApart if dice.per_mille(500) => {
                        let second = [second];
                        [one_way(&lagging, &second, false), one_way(&lagging, &second, true)].concat()
                    }
                    Fault::MembersApart => one_way(&lagging, &[second], false),
                    Fault::GuardAtStaleMember => {
                        let at = self.guard(world, dice);
                        let id = world.guards[at].id.clone();
                        claims.push(id.clone());
                        let stale = [one_way(&lagging, &others, false), one_way(&lagging, &others, true)].concat();
                        [stale, one_way(&id, &others, false), one_way(&id, &others, true)].concat()
                    }
                    _ => [one_way(&lagging, &others, false), one_way(&lagging, &others, true)].concat(),
                };
                (cuts, claims)
            }
        };
        cuts.iter().for_each(|(from, to)| world.ground.cut(from, to));
        let claims: Vec<&str> = claims.iter().map(String::as_str).collect();
        self.hold(&claims, step, move |world| cuts.iter().for_each(|(from, to)| world.ground.mend(from, to)));
    }
}

/// Nothing of `one` reaches the others; or nothing of them reaches it.
fn one_way(one: &str, others: &[String], deaf: bool) -> Vec<(String, String)> {
    let pair = |other: &String| {
        if deaf { (other.clone(), one.to_owned()) } else { (one.to_owned(), other.clone()) }
    };
    others.iter().map(pair).collect()
}
