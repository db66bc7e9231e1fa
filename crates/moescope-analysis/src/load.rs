//! From a run directory to [`RunData`]: the one place that knows the tables of moescope-trace.

use moescope_trace::manifest::Manifest;
use moescope_trace::{RoutingFields, RoutingTable, Run, RunTables, TokenTable};

use crate::data::{LayerData, NO_EXPERT, RunData, Sequence, TokenData};
use crate::error::AnalysisError;
use crate::texts::TokenTexts;

impl RunData {
    /// Reads a run into dense arrays.
    ///
    /// # Errors
    ///
    /// [`AnalysisError::Trace`] where the directory cannot be read, and the others where its tables
    /// contradict each other or the manifest.
    pub fn load(run: &Run) -> Result<Self, AnalysisError> {
        let fields = RoutingFields { output_norms: true, ..RoutingFields::default() };
        Self::from_tables(run.manifest().clone(), run.is_partial(), run.read_with(fields)?)
    }

    /// Dense arrays from tables that are already in memory, as [`Run::read`] gives them: tokens in
    /// any order, and for each routing row its token.
    ///
    /// # Errors
    ///
    /// [`AnalysisError::Value`] where a row contradicts another or the manifest.
    pub fn from_tables(
        manifest: Manifest,
        partial: bool,
        tables: RunTables,
    ) -> Result<Self, AnalysisError> {
        let RunTables { tokens, routing, token_of_row, steps, .. } = tables;
        // A run is written sequence by sequence or batch by batch. This sort takes linear time on
        // what is in order, and the tokens are few beside the routing rows.
        let mut order: Vec<u32> = (0..tokens.rows() as u32).collect();
        order.sort_by_key(|&row| (tokens.sequence[row as usize], tokens.position[row as usize]));
        let mut rank_of = vec![0; order.len()];
        for (rank, &row) in (0u32..).zip(&order) {
            rank_of[row as usize] = rank;
        }
        let data = Self {
            name: manifest.model.name.clone(),
            partial,
            sequences: sequences(&tokens, &order)?,
            tokens: token_data(&tokens, &order),
            domains: tokens.domains,
            layers: layers(&manifest, &routing, &token_of_row, &rank_of)?,
            steps,
            manifest,
        };
        data.check()?;
        Ok(data)
    }
}

fn sequences(tokens: &TokenTable, order: &[u32]) -> Result<Vec<Sequence>, AnalysisError> {
    let mut sequences: Vec<Sequence> = Vec::new();
    for (rank, &row) in order.iter().enumerate() {
        let (id, domain) = (tokens.sequence[row as usize], tokens.domain[row as usize]);
        match sequences.last_mut() {
            Some(last) if last.id == id => {
                if last.domain != domain {
                    let name = |domain: u16| {
                        tokens.domains.get(usize::from(domain)).map_or("?", String::as_str)
                    };
                    return Err(AnalysisError::Value {
                        column: "tokens.domain",
                        sequence: id,
                        position: tokens.position[row as usize],
                        problem: format!(
                            "a sequence has one domain; found {:?} after {:?}",
                            name(domain),
                            name(last.domain)
                        ),
                    });
                }
                last.end = rank + 1;
            }
            _ => sequences.push(Sequence { id, domain, start: rank, end: rank + 1 }),
        }
    }
    Ok(sequences)
}

fn token_data(tokens: &TokenTable, order: &[u32]) -> TokenData {
    fn ordered<T: Copy>(column: &[T], order: &[u32]) -> Vec<T> {
        order.iter().map(|&row| column[row as usize]).collect()
    }
    let logprob = tokens.logprob.iter().any(Option::is_some).then(|| {
        order.iter().map(|&row| tokens.logprob[row as usize].unwrap_or(f32::NAN)).collect()
    });
    TokenData {
        position: ordered(&tokens.position, order),
        token_id: ordered(&tokens.token_id, order),
        step: ordered(&tokens.step, order),
        phase: ordered(&tokens.phase, order),
        logprob,
        texts: TokenTexts::collect(order.iter().map(|&row| tokens.text[row as usize].as_str())),
    }
}

fn layers(
    manifest: &Manifest,
    routing: &RoutingTable,
    token_of_row: &[u32],
    rank_of: &[u32],
) -> Result<Vec<LayerData>, AnalysisError> {
    let tokens = rank_of.len();
    let column = |recorded: bool, width: usize| recorded.then(|| vec![f32::NAN; tokens * width]);
    let mut layers: Vec<LayerData> = manifest
        .moe
        .layers
        .iter()
        .map(|shape| {
            let top_k = usize::from(shape.top_k);
            LayerData {
                layer: shape.layer,
                experts: usize::from(shape.experts),
                top_k,
                ids: vec![NO_EXPERT; tokens * top_k],
                weights: column(routing.weights.is_some(), top_k),
                entropy: column(routing.entropy.is_some(), 1),
                margin: column(routing.margin.is_some(), 1),
                output_norms: column(routing.output_norms.is_some(), top_k),
            }
        })
        .collect();
    let highest = layers.iter().map(|layer| usize::from(layer.layer)).max();
    let mut place_of = vec![None; highest.map_or(0, |highest| highest + 1)];
    for (place, layer) in layers.iter().enumerate() {
        place_of[usize::from(layer.layer)] = Some(place);
    }

    for (row, &token) in token_of_row.iter().enumerate() {
        let number = routing.layer[row];
        let wrong = |column: &'static str, problem: String| AnalysisError::Value {
            column,
            sequence: routing.sequence[row],
            position: routing.position[row],
            problem,
        };
        let Some(place) = place_of.get(usize::from(number)).copied().flatten() else {
            let problem = format!("manifest.json has no MoE layer {number}");
            return Err(wrong("routing.layer", problem));
        };
        let layer = &mut layers[place];
        let experts = routing.experts_of(row);
        // Fewer is a router with a threshold; the rest of the row stays empty.
        if experts.len() > layer.top_k {
            let problem = format!(
                "manifest.json says {} experts per token at layer {number}, found {}",
                layer.top_k,
                experts.len()
            );
            return Err(wrong("routing.experts", problem));
        }
        let token = rank_of[token as usize] as usize;
        let first = token * layer.top_k;
        let selected = first..first + experts.len();
        layer.ids[selected.clone()].copy_from_slice(experts);
        if let (Some(to), Some(from)) = (&mut layer.weights, routing.weights_of(row)) {
            to[selected.clone()].copy_from_slice(from);
        }
        if let (Some(to), Some(from)) = (&mut layer.output_norms, routing.output_norms_of(row)) {
            to[selected].copy_from_slice(from);
        }
        if let (Some(to), Some(from)) = (&mut layer.entropy, &routing.entropy) {
            to[token] = from[row];
        }
        if let (Some(to), Some(from)) = (&mut layer.margin, &routing.margin) {
            to[token] = from[row];
        }
    }
    Ok(layers)
}
